// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation

/// A server that a benchmark starts for itself and ends with it.
final class BenchServer {
    let url: String
    let key: String
    let accelerator: String
    private let process: Process
    private let directory: String

    /// Starts this program's `serve` on a free port, with a data directory of its own and the images at hand.
    init(images: String, variant: String) throws {
        directory = NSTemporaryDirectory() + "/swiftlet-bench-\(UUID().uuidString)"
        process = Process()
        process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = [
            "serve", "--port", "0", "--data-directory", directory, "--images-directory", images, "--image-variant",
            variant,
            "--log-level", "error",
        ]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        var text = ""
        while !text.contains("\n  curl") {
            let data = pipe.fileHandleForReading.availableData
            guard !data.isEmpty else { throw ValidationError("The server did not start: \(text)") }
            text += String(decoding: data, as: UTF8.self)
        }
        guard let url = text.firstMatch(of: /listens on (http:\S+:\d+), with (\w+)/),
            let key = text.firstMatch(of: /Key:\s+(\S+)/)
        else { throw ValidationError("The server said something unexpected: \(text)") }
        self.url = String(url.1)
        accelerator = url.2 == "KVM" ? "kvm" : "tcg"
        self.key = String(key.1)
    }

    func stop() throws {
        process.terminate()
        process.waitUntilExit()
        try FileManager.default.removeItem(atPath: directory)
    }
}
