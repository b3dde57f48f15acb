// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation

/// The measurements, each on a server set up for it.
struct Benchmark {
    struct Counts {
        var warm: Int
        var new: Int
        var cold: Int
        var burst: Int
    }

    let settings: Settings
    let variant: String
    let counts: Counts
    private(set) var accelerator = ""
    private(set) var samples: [Samples] = []

    init(settings: Settings, variant: String, counts: Counts) {
        self.settings = settings
        self.variant = variant
        self.counts = counts
    }

    /// Measures everything, on servers of its own.
    mutating func run() async throws {
        let pool = ["SWIFTLET_POOL_SIZE": "2", "SWIFTLET_POOL_MAXIMUM": "2"]
        try await withServer("pool of 2", pool) { benchmark, server in
            try await benchmark.measureRunning(server)
        }
        try await withServer("no pool", ["SWIFTLET_POOL_SIZE": "0", "SWIFTLET_POOL_MAXIMUM": "0"]) {
            benchmark,
            server in
            let work = Workload(client: server.client)
            // The first has the template loaded.
            _ = try await work.newSessions(2) {}
            benchmark.add("new session, from the template", try await work.newSessions(benchmark.counts.new) {})
            try await work.client.close()
        }
        try await withServer("no templates", ["SWIFTLET_TEMPLATES": "false"]) { benchmark, server in
            let work = Workload(client: server.client)
            benchmark.add("new session, booted", try await work.newSessions(benchmark.counts.cold) {})
            try await work.client.close()
        }
        try await burst()
    }

    private mutating func measureRunning(_ server: BenchServer) async throws {
        let work = Workload(client: server.client)
        accelerator = server.accelerator
        try await work.poolHas(2)
        addUse(of: server, "idle server")
        try await measurePool(server, work)
        add("new session, from the pool", try await work.newSessions(counts.new) { try await work.poolHas(2) })
        try await work.poolHas(2)
        for clients in [1, 8, 32] { try await measureWarm(work, clients: clients) }
        try await measureThroughput(work)
        addUse(of: server, "server after all this")
        try await work.client.close()
    }

    private mutating func measureWarm(_ work: Workload, clients: Int) async throws {
        var sessions: [String] = []
        for _ in 0..<clients {
            let session = try await work.session(memoryMB: clients > 8 ? 256 : nil)
            try await work.call("1+1", session: session)
            sessions.append(session)
        }
        for (language, code) in [("python", "1+1"), ("bash", "true")] {
            let times = try await work.warmCalls(code, language, count: counts.warm, sessions: sessions)
            add("warm \(language) \(code), \(clients) at once", times)
        }
        for session in sessions { try await work.kill(session) }
    }

    private mutating func measureThroughput(_ work: Workload) async throws {
        let session = try await work.session()
        var rates: [Double] = []
        for _ in 0..<3 {
            let time = try await Workload.time {
                let reply = try await work.call("head -c 100000000 /dev/zero | tr '\\0' x", "bash", session: session)
                guard reply.stdout.utf8.count == 100_000_000 else { throw ValidationError("Output was lost") }
            }
            rates.append(100_000 / time)
        }
        try await work.kill(session)
        add("stdout of 100 MB", rates, unit: "MB/s")
    }

    /// What machines cost that wait.
    private mutating func measurePool(_ server: BenchServer, _ work: Workload) async throws {
        let machines = server.machines
        let before = machines.map(BenchServer.processorTime)
        try await Task.sleep(for: .seconds(10))
        let spent = zip(machines, before).map { BenchServer.processorTime(of: $0) - $1 }
        add("waiting clone, processor time in 10 s", spent, unit: "ms")
        let memory = machines.map(BenchServer.memory)
        add("waiting clone, memory of its own", memory.map(\.own), unit: "MiB")
        add("waiting clone, PSS", memory.map(\.proportional), unit: "MiB")
    }

    private mutating func burst() async throws {
        let settings = ["SWIFTLET_MEMORY_MB": "256", "SWIFTLET_VCPU_COUNT": "1", "SWIFTLET_POOL_SIZE": "2"]
        try await withServer("burst", settings) { benchmark, server in
            let work = Workload(client: server.client)
            try await work.poolHas(2)
            let times = try await work.burst(benchmark.counts.burst, memoryMB: 256)
            benchmark.add("burst of \(benchmark.counts.burst) new sessions", times)
            try await work.client.close()
        }
    }

    // MARK: Book-keeping

    private mutating func withServer(
        _ name: String,
        _ environment: [String: String],
        _ body: (inout Benchmark, BenchServer) async throws -> Void
    ) async throws {
        FileHandle.standardError.write(Data("server: \(name)\n".utf8))
        let server = try BenchServer(settings, variant: variant, environment: environment)
        do {
            try await body(&self, server)
            try server.stop()
        } catch {
            try server.stop()
            throw error
        }
    }

    private mutating func addUse(of server: BenchServer, _ when: String) {
        add("\(when), resident memory", [server.residentMB], unit: "MiB")
    }

    private mutating func add(_ name: String, _ values: [Double], unit: String = "ms") {
        let sample = Samples(name: name, unit: unit, values: values)
        samples.append(sample)
        FileHandle.standardError.write(Data("  \(BenchReport.row(sample))\n".utf8))
    }
}
