// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletVM

/// Where and what was measured, with all samples.
struct BenchReport: Encodable, Sendable {
    struct Host: Encodable, Sendable {
        var name: String
        var processor: String
        var processors: Int
        var kernel: String
        var qemu: String
        var accelerator: String
        var commit: String
    }

    var date: Date
    var host: Host
    var samples: [Samples]

    /// For people.
    var table: String {
        var lines = [
            "\(host.processor), \(host.processors) processors, Linux \(host.kernel)",
            "\(host.qemu), \(host.accelerator), commit \(host.commit)",
            "",
            Self.row("", "N", "p50", "p90", "p99", ""),
        ]
        lines += samples.map(Self.row)
        return lines.joined(separator: "\n")
    }

    static func row(_ sample: Samples) -> String {
        let values = [0.5, 0.9, 0.99].map { String(format: "%.2f", sample.percentile($0)) }
        return row(sample.name, "\(sample.values.count)", values[0], values[1], values[2], sample.unit)
    }

    private static func row(_ name: String, _ cells: String...) -> String {
        let first = name + String(repeating: " ", count: max(1, 40 - name.count))
        return first + cells.map { String(repeating: " ", count: max(1, 9 - $0.count)) + $0 }.joined()
    }
}

extension BenchReport.Host {
    /// This machine. The tools that tell are asked once; what they do not tell is "unknown".
    static func current(qemu: String, accelerator: String) -> BenchReport.Host {
        let kernel = try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)
        return BenchReport.Host(
            name: ProcessInfo.processInfo.hostName,
            processor: HostProcessor.model,
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
