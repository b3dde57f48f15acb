// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The machine on which something was measured.
package struct Host: Encodable, Sendable {
    package var name: String
    package var processor: String
    package var processors: Int
    package var kernel: String
    package var qemu: String
    package var accelerator: String
    package var commit: String

    package init(
        name: String,
        processor: String,
        processors: Int,
        kernel: String,
        qemu: String,
        accelerator: String,
        commit: String
    ) {
        self.name = name
        self.processor = processor
        self.processors = processors
        self.kernel = kernel
        self.qemu = qemu
        self.accelerator = accelerator
        self.commit = commit
    }

    /// This machine. What cannot be found out is "unknown".
    static func current(qemu: String, accelerator: String) -> Host {
        let kernel = try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)
        return Host(
            name: ProcessInfo.processInfo.hostName,
            processor: ProcFile("/proc/cpuinfo").value(of: "model name") ?? "unknown",
            processors: ProcessInfo.processInfo.activeProcessorCount,
            kernel: kernel?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "unknown",
            qemu: output(of: qemu, "--version"),
            accelerator: accelerator,
            commit: output(of: "/usr/bin/git", "rev-parse", "--short", "HEAD")
        )
    }

    private static func output(of program: String, _ arguments: String...) -> String {
        let process = Process()
        process.executableURL = URL(filePath: program)
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return "unknown" }
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        let line = String(decoding: data, as: UTF8.self).split(separator: "\n").first.map(String.init)
        return process.terminationStatus == 0 ? line ?? "unknown" : "unknown"
    }
}

/// A file of `name: value` lines. Format: proc(5), cpuinfo, status and smaps_rollup.
package struct ProcFile {
    private let text: String

    package init(_ path: String) {
        // A process that has ended has no files any more, and no values.
        text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    }

    /// The value of the first line with this name; nil when there is none.
    package func value(of name: String) -> String? {
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, parts[0].trimmingCharacters(in: .whitespaces) == name else { continue }
            return parts[1].trimmingCharacters(in: .whitespaces)
        }
        return nil
    }

    /// A value of the form `1234 kB`, in MiB; 0 when there is none.
    package func mebibytes(of name: String) -> Double {
        let number = value(of: name)?.split(separator: " ").first.flatMap { Double($0) }
        return (number ?? 0) / 1_024
    }
}
