// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletClient

@main
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "swiftlet bench",
        abstract: "Measures servers, as their clients see them.",
        discussion: """
            With --start, servers of its own: new sessions from the pool, from the template and booted; warm calls of 1, 8 and 32 \
            clients; imports; calls beside a refill; idle sessions; a burst of new sessions; what a waiting clone costs; the \
            throughput of output. Without, a running server: new sessions as they come, and warm calls.

            Each time is also given in units of "py", the median of python3 -c pass on this machine in the same run.

              swiftlet bench --start                      everything
              swiftlet bench --start --phase burst        one phase of it
              swiftlet bench --count 2000 --json b.json   the running one, with every sample
            """
    )

    @OptionGroup var server: ClientOptions
    @OptionGroup var servers: ServerOptions

    @Flag(help: "Start servers of its own, on free ports.")
    var start = false

    @Option(help: "With --start, measure these alone: \(Benchmark.Phase.allValueStrings.joined(separator: ", ")).")
    var phase: [Benchmark.Phase] = Benchmark.Phase.allCases

    @Option(help: "Warm calls of each kind.")
    var count = 500

    @Option(help: "Calls of each kind that come with pauses.")
    var pacedCount = 40

    @Option(help: "New sessions of each kind.")
    var newCount = 50

    @Option(help: "New sessions that import pandas and matplotlib.pyplot.")
    var importCount = 5

    @Option(help: "Booted sessions.")
    var coldCount = 5

    @Option(help: "Idle sessions at once.")
    var idle = 40

    @Option(help: "New sessions at once.")
    var burst = 50

    @Option(help: "Write everything that was measured to this file.")
    var json: String?

    static func main() async {
        let words = CommandLine.arguments
        guard words.count > 3, words[1] == Supervisor.command else { return await main(nil) }
        do {
            try Supervisor.run(directory: words[2], words: Array(words[3...]))
        } catch {
            exit(withError: error)
        }
    }

    func validate() throws {
        guard min(count, pacedCount, newCount, importCount, coldCount, idle, burst) > 0 else {
            throw ValidationError("Counts must be positive")
        }
    }

    func run() async throws {
        let settings = try ServerSettings(servers)
        let report = start ? try await measureOwn(settings) : try await measureRunning(settings)
        print(report.table)
        if let json { try write(report, to: json) }
        if !report.failures.isEmpty { throw ExitCode.failure }
    }

    private func measureOwn(_ settings: ServerSettings) async throws -> Report {
        let counts = Benchmark.Counts(
            warm: count,
            paced: pacedCount,
            new: newCount,
            imports: importCount,
            cold: coldCount,
            idle: idle,
            burst: burst
        )
        var benchmark = Benchmark(settings: settings, counts: counts)
        try await benchmark.run(phase)
        return Report(
            date: Date(),
            host: .current(qemu: settings.qemu, accelerator: benchmark.accelerator),
            samples: benchmark.samples,
            python: benchmark.python.samples,
            failures: benchmark.failures
        )
    }

    private func measureRunning(_ settings: ServerSettings) async throws -> Report {
        let client = try server.client()
        do {
            var python = HostPython()
            try python.measure(20)
            let samples = try await measure(Workload(client: client))
            try python.measure(20)
            try await client.close()
            let host = Host.current(qemu: settings.qemu, accelerator: "accelerator as the server says")
            return Report(date: Date(), host: host, samples: samples, python: python.samples)
        } catch {
            try await client.close()
            throw error
        }
    }

    private func measure(_ work: Workload) async throws -> [Samples] {
        let new = try await work.newSessions(newCount) { try await Task.sleep(for: .milliseconds(1_000)) }
        var samples = [Samples("new session, as it comes", new)]
        let session = try await work.session()
        for (language, code) in [("python", "1+1"), ("bash", "true")] {
            let times = try await work.warmCalls(code, language, count: count, sessions: [session])
            samples.append(Samples("warm \(language) \(code), 1 at once", times))
        }
        try await work.kill(session)
        return samples
    }

    private func write(_ report: Report, to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        encoder.dateEncodingStrategy = .iso8601
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf",
            negativeInfinity: "-inf",
            nan: "nan"
        )
        try encoder.encode(report).write(to: URL(filePath: path))
    }
}
