// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletClient

/// A server that a benchmark starts for itself, and that ends with it however it ends.
final class BenchServer {
    let url: String
    let key: String
    let accelerator: String
    private let supervisor: Process
    /// The supervisor ends the server when this closes.
    private let lifeline = Pipe()

    /// Starts `swiftlet serve` on a free port, with a data directory of its own and the images and templates at hand.
    ///
    /// - Parameter environment: settings on top of the bench's own.
    init(_ settings: ServerSettings, environment: [String: String] = [:]) throws {
        let directory = NSTemporaryDirectory() + "/swiftlet-bench-\(UUID().uuidString)"
        supervisor = Process()
        supervisor.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        // 32 clients and a burst of 50 are more than a small machine would admit by itself. What still runs when a phase is over
        // is not waited for.
        let own = ["SWIFTLET_MEMORY_BUDGET_MB": "65536", "SWIFTLET_SHUTDOWN_SECONDS": "1"]
        supervisor.environment = ProcessInfo.processInfo.environment.merging(own) { $1 }.merging(environment) { $1 }
        supervisor.arguments =
            [Supervisor.command, directory, settings.program] + settings.serveArguments(data: directory)
        supervisor.standardInput = lifeline
        let output = Pipe()
        supervisor.standardOutput = output
        try supervisor.run()
        // Else this process would hold its own end of the pipe open.
        try lifeline.fileHandleForReading.close()
        var text = ""
        while !text.contains(/listens on http:\S+:\d+, with \w+.*\n/) {
            let data = output.fileHandleForReading.availableData
            guard !data.isEmpty else { throw try Self.failedStart(text, supervisor, lifeline) }
            text += String(decoding: data, as: UTF8.self)
        }
        // Without an image a server starts, and waits for one; there is nothing to measure.
        guard !text.contains("with no guest image") else { throw try Self.failedStart(text, supervisor, lifeline) }
        guard let found = text.firstMatch(of: /listens on (http:\S+:\d+), with (\w+)/) else {
            throw ValidationError("The server's greeting is not the expected one: \(text)")
        }
        url = String(found.1)
        accelerator = found.2 == "KVM" ? "kvm" : "tcg"
        key = try String(contentsOfFile: FirstKey.file(inDataDirectory: directory), encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Ends what was started; returns the error that tells what the server printed.
    private static func failedStart(
        _ text: String,
        _ supervisor: Process,
        _ lifeline: Pipe
    ) throws -> ValidationError {
        try lifeline.fileHandleForWriting.close()
        supervisor.waitUntilExit()
        return ValidationError("The server did not start: \(text)")
    }

    /// A client of it; the caller must close it.
    func client(connections: Int) -> APIClient { APIClient(url: url, key: key, connections: connections) }

    /// Ends the server; returns when its files are removed.
    func stop() throws {
        try lifeline.fileHandleForWriting.close()
        supervisor.waitUntilExit()
        guard supervisor.terminationStatus == 0 else {
            throw ValidationError("The server's supervisor ended with \(supervisor.terminationStatus)")
        }
    }

    /// Resident memory of the server itself, in MiB.
    var residentMB: Double {
        let server = HostProcess(pid: supervisor.processIdentifier).descendants.first
        return server?.residentMB ?? .nan
    }

    /// Its QEMUs, those in pools included.
    var machines: [HostProcess] {
        HostProcess(pid: supervisor.processIdentifier).descendants.filter { $0.name.hasPrefix("qemu") }
    }
}
