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

    /// Starts this program's `serve` on a free port, with a data directory of its own and the images and templates at hand.
    ///
    /// - Parameter environment: settings on top of the bench's own.
    init(_ settings: Settings, variant: String, environment: [String: String] = [:]) throws {
        directory = NSTemporaryDirectory() + "/swiftlet-bench-\(UUID().uuidString)"
        process = Process()
        process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        // 32 clients and a burst of 50 are more than a small machine would admit by itself.
        let roomy = ["SWIFTLET_CPU_OVERCOMMIT": "200", "SWIFTLET_MEMORY_BUDGET_MB": "65536"]
        process.environment = ProcessInfo.processInfo.environment.merging(roomy) { $1 }.merging(environment) { $1 }
        process.arguments = [
            "serve", "--port", "0", "--data-directory", directory, "--images-directory", settings.data.images,
            "--templates-directory", settings.data.templates, "--image-variant", variant,
            "--accelerator", settings.accelerator.rawValue, "--log-level", "error",
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

    var client: APIClient { APIClient(url: url, key: key) }

    func stop() throws {
        process.terminate()
        process.waitUntilExit()
        try FileManager.default.removeItem(atPath: directory)
    }

    // MARK: What it takes of the machine; formats: proc(5)

    /// Resident memory of the server itself, in MiB.
    var residentMB: Double {
        Double(Self.number(behind: "VmRSS:", in: "/proc/\(process.processIdentifier)/status")) / 1_024
    }

    /// Its QEMUs, those in pools included.
    var machines: [Int32] {
        Self.descendants(of: process.processIdentifier).filter { pid in
            let name = try? String(contentsOfFile: "/proc/\(pid)/comm", encoding: .utf8)
            return name?.hasPrefix("qemu") == true
        }
    }

    /// Memory of a process that would be free without it, and its share of what it has in common with others, in MiB.
    static func memory(of pid: Int32) -> (own: Double, proportional: Double) {
        let file = "/proc/\(pid)/smaps_rollup"
        let own = number(behind: "Private_Clean:", in: file) + number(behind: "Private_Dirty:", in: file)
        return (Double(own) / 1_024, Double(number(behind: "Pss:", in: file)) / 1_024)
    }

    /// Processor time of a process so far, in milliseconds.
    static func processorTime(of pid: Int32) -> Double {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
        let fields = text[(text.lastIndex(of: ")") ?? text.startIndex)...].split(separator: " ")
        guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else { return 0 }
        return (user + system) * 10
    }

    private static func descendants(of pid: Int32) -> [Int32] {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        let children = tasks.flatMap { task in
            let text = (try? String(contentsOfFile: "/proc/\(pid)/task/\(task)/children", encoding: .utf8)) ?? ""
            return text.split(separator: " ").compactMap { Int32($0) }
        }
        return children + children.flatMap(descendants)
    }

    private static func number(behind key: String, in file: String) -> Int {
        let text = (try? String(contentsOfFile: file, encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix(key) }
        return line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0
    }
}
