// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measures a server, as its clients see it.",
        discussion: """
            Cold: a new session and its first call. Warm: calls of a session whose VM runs. One call at a time, over HTTP.

              swiftlet bench --start                    start a server for it
              swiftlet bench --count 2000 --json b.json measure the running one, keep every sample
            """
    )

    @OptionGroup var server: ClientOptions
    @OptionGroup var common: CommonOptions

    @Flag(help: "Start a server of its own, on a free port.")
    var start = false

    @Option(help: "The image of the server that is started.")
    var imageVariant = "standard"

    @Option(help: "Warm calls of each kind.")
    var count = 500

    @Option(help: "Cold starts.")
    var coldCount = 5

    @Option(help: "Write everything that was measured to this file.")
    var json: String?

    func validate() throws {
        guard count > 0, coldCount > 0 else { throw ValidationError("--count and --cold-count must be positive") }
    }

    func run() async throws {
        let settings = try await common.settings()
        let own = start ? try BenchServer(images: settings.data.images, variant: imageVariant) : nil
        let client = try own.map { APIClient(url: $0.url, key: $0.key) } ?? server.client()
        do {
            let samples = try await measure(client)
            try await client.close()
            try own?.stop()
            let host = BenchReport.Host.current(
                qemu: settings.qemu,
                accelerator: own?.accelerator ?? "as the server says"
            )
            let report = BenchReport(date: Date(), host: host, samples: samples)
            print(report.table)
            if let json { try write(report, to: json) }
        } catch {
            try await client.close()
            try own?.stop()
            throw error
        }
    }

    private func measure(_ client: APIClient) async throws -> [Samples] {
        var cold: [Double] = []
        var session = ""
        for number in 1...coldCount {
            FileHandle.standardError.write(Data("cold start \(number) of \(coldCount)\n".utf8))
            if !session.isEmpty { try await kill(session, client) }
            cold.append(try await time { session = try await call("1+1", "python", nil, client).sessionID })
        }
        var results = [Samples(name: "cold: new session, python 1+1", milliseconds: cold)]
        for (language, code) in [("python", "1+1"), ("bash", "true")] {
            FileHandle.standardError.write(Data("\(count) warm calls, \(language)\n".utf8))
            // What the guest's emulator translates once is not measured.
            for _ in 0..<50 { _ = try await call(code, language, session, client) }
            var warm: [Double] = []
            for _ in 0..<count {
                warm.append(try await time { _ = try await call(code, language, session, client) })
            }
            results.append(Samples(name: "warm: \(language) \(code)", milliseconds: warm))
        }
        try await kill(session, client)
        return results
    }

    private func call(
        _ code: String,
        _ language: String,
        _ session: String?,
        _ client: APIClient
    ) async throws -> ExecuteReply {
        let reply = try await client.execute(
            ExecuteBody(command: code, language: language, sessionID: session, timeout: 300)
        )
        guard reply.exitCode == 0 else {
            throw ValidationError("\(code) ended with \(reply.exitCode): \(reply.stderr)")
        }
        return reply
    }

    private func kill(_ session: String, _ client: APIClient) async throws {
        _ = try await client.post("/kill", body: try JSONEncoder().encode(["session_id": session]))
    }

    /// Milliseconds that something takes.
    private func time(_ body: () async throws -> Void) async throws -> Double {
        let started = ContinuousClock.now
        try await body()
        return (ContinuousClock.now - started) / .milliseconds(1)
    }

    private func write(_ report: BenchReport, to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        encoder.dateEncodingStrategy = .iso8601
        try encoder.encode(report).write(to: URL(filePath: path))
    }
}
