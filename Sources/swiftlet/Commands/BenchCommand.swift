// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measures servers, as their clients see them.",
        discussion: """
            With --start, servers of its own: new sessions from the pool, from the template and booted; warm calls of 1, 8 and 32 \
            clients; a burst of new sessions; what a waiting clone costs; the throughput of output. Without, a running server: \
            new sessions as they come, and warm calls.

              swiftlet bench --start                      everything
              swiftlet bench --count 2000 --json b.json   the running one, with every sample
            """
    )

    @OptionGroup var server: ClientOptions
    @OptionGroup var common: CommonOptions

    @Flag(help: "Start servers of its own, on free ports.")
    var start = false

    @Option(help: "The image of the servers that are started.")
    var imageVariant = "standard"

    @Option(help: "auto, tcg or kvm, of the servers that are started.")
    var accelerator: String?

    @Option(help: "Warm calls of each kind.")
    var count = 500

    @Option(help: "New sessions of each kind.")
    var newCount = 50

    @Option(help: "Booted sessions.")
    var coldCount = 5

    @Option(help: "New sessions at once.")
    var burst = 50

    @Option(help: "Write everything that was measured to this file.")
    var json: String?

    func validate() throws {
        guard min(count, newCount, coldCount, burst) > 0 else { throw ValidationError("Counts must be positive") }
    }

    func run() async throws {
        let settings = try await common.settings(accelerator.map { [.accelerator: $0] } ?? [:])
        let measured: (samples: [Samples], accelerator: String)
        if start {
            let counts = Benchmark.Counts(warm: count, new: newCount, cold: coldCount, burst: burst)
            var benchmark = Benchmark(settings: settings, variant: imageVariant, counts: counts)
            try await benchmark.run()
            measured = (benchmark.samples, benchmark.accelerator)
        } else {
            measured = (try await measureRunning(), "accelerator as the server says")
        }
        let host = BenchReport.Host.current(qemu: settings.qemu, accelerator: measured.accelerator)
        let report = BenchReport(date: Date(), host: host, samples: measured.samples)
        print(report.table)
        if let json { try write(report, to: json) }
    }

    private func measureRunning() async throws -> [Samples] {
        let client = try server.client()
        let work = Workload(client: client)
        do {
            let new = try await work.newSessions(newCount) { try await Task.sleep(for: .milliseconds(1_000)) }
            var samples = [Samples(name: "new session, as it comes", unit: "ms", values: new)]
            let session = try await work.session()
            for (language, code) in [("python", "1+1"), ("bash", "true")] {
                let times = try await work.warmCalls(code, language, count: count, sessions: [session])
                samples.append(Samples(name: "warm \(language) \(code), 1 at once", unit: "ms", values: times))
            }
            try await work.kill(session)
            try await client.close()
            return samples
        } catch {
            try await client.close()
            throw error
        }
    }

    private func write(_ report: BenchReport, to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        encoder.dateEncodingStrategy = .iso8601
        try encoder.encode(report).write(to: URL(filePath: path))
    }
}
