// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletClient

/// What each phase measures. The budgets are those of the design.
extension Benchmark {
    private static let imports = "import pandas, matplotlib.pyplot"
    private static let noPool = ["SWIFTLET_POOL_SIZE": "0", "SWIFTLET_POOL_MAXIMUM": "0"]

    // MARK: A server with a pool

    mutating func measurePool() async throws {
        let pool = ["SWIFTLET_POOL_SIZE": "2", "SWIFTLET_POOL_MAXIMUM": "2"]
        try await withServer("a pool of 2", pool) { benchmark, server, work in
            try await work.poolHas(2)
            benchmark.add("server, idle: resident memory", [server.residentMB], unit: "MiB", budget: .atMost(80))
            try await benchmark.measureWaiting(server)
            try await benchmark.measureNew(work)
            try await work.poolHas(2)
            for clients in [1, 8, 32] { try await benchmark.measureWarm(work, clients: clients) }
            try await benchmark.measurePaced(work)
            try await benchmark.measureRefill(work)
            try await benchmark.measureOutput(work)
            benchmark.add("server, after all this: resident memory", [server.residentMB], unit: "MiB")
        }
    }

    /// What clones cost that wait in the pool.
    private mutating func measureWaiting(_ server: BenchServer) async throws {
        let machines = server.machines
        let shares = try await processorShares(of: machines, during: .seconds(10))
        add("waiting clone: share of a core", shares, unit: "%", budget: .atMost(0))
        let memory = machines.map(\.memory)
        add("waiting clone: memory of its own", memory.map(\.own), unit: "MiB", budget: .atMost(48))
        add("waiting clone: PSS", memory.map(\.proportional), unit: "MiB")
    }

    private mutating func measureNew(_ work: Workload) async throws {
        let new = try await work.newSessions(counts.new) { try await work.poolHas(2) }
        add("new session, from the pool", new, budget: .pythons(1.4))
        let imports = try await work.newSessions(counts.imports, code: Self.imports) { try await work.poolHas(2) }
        add("new session, import pandas and pyplot", imports, budget: .pythons(30))
    }

    private mutating func measureWarm(_ work: Workload, clients: Int) async throws {
        var sessions: [String] = []
        for _ in 0..<clients {
            let session = try await work.session(memoryMB: clients > 8 ? 256 : nil)
            try await work.call("1+1", session: session)
            sessions.append(session)
        }
        for (language, code, budget) in [("python", "1+1", 0.3), ("bash", "true", 1.2)] {
            let times = try await work.warmCalls(code, language, count: counts.warm, sessions: sessions)
            // With more clients than cores their calls wait for each other.
            add("warm \(language) \(code), \(clients) at once", times, budget: clients == 1 ? .pythons(budget) : nil)
        }
        for session in sessions { try await work.kill(session) }
    }

    private mutating func measurePaced(_ work: Workload) async throws {
        let session = try await work.session()
        try await work.call("true", "bash", session: session)
        let times = try await work.pacedCalls(
            "true",
            "bash",
            count: counts.paced,
            pause: .milliseconds(300),
            session: session
        )
        add("warm bash true, a call every 0.3 s", times, budget: .pythons(0.7))
        try await work.kill(session)
    }

    /// Calls while a pool that lost a clone makes another one, in turn with calls while it does not.
    private mutating func measureRefill(_ work: Workload) async throws {
        let each = 10
        let session = try await work.session()
        _ = try await work.warmCalls("1+1", "python", count: 30, sessions: [session])
        var alone: [Double] = []
        var beside: [Double] = []
        for _ in 0..<max(1, counts.paced / each) {
            try await work.poolHas(2)
            alone += try await work.pacedCalls("1+1", "python", count: each, pause: .milliseconds(10), session: session)
            let taken = try await work.session()
            try await work.call("1+1", session: taken)
            let times = try await work.pacedCalls(
                "1+1",
                "python",
                count: each,
                pause: .milliseconds(10),
                session: session
            )
            // Calls after the refill's end would make the result better than it is.
            if try await work.waitingMachines() < 2 { beside += times }
            try await work.kill(taken)
        }
        try await work.kill(session)
        guard !beside.isEmpty else { throw ValidationError("Each refill was over before the calls beside it were") }
        add("warm python 1+1, no refill", alone)
        add("warm python 1+1, beside a refill", beside, budget: .times(1.3, of: "warm python 1+1, no refill"))
    }

    private mutating func measureOutput(_ work: Workload) async throws {
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
        add("stdout of 100 MB", rates, unit: "MB/s", budget: .atLeast(25))
    }

    // MARK: Other servers

    mutating func measureTemplate() async throws {
        try await withServer("no pool", Self.noPool) { benchmark, _, work in
            // The first has the template loaded.
            _ = try await work.newSessions(2) {}
            let times = try await work.newSessions(benchmark.counts.new) {}
            benchmark.add("new session, from the template", times, budget: .pythons(19))
        }
    }

    mutating func measureBoot() async throws {
        try await withServer("no templates", ["SWIFTLET_TEMPLATES": "false"]) { benchmark, _, work in
            benchmark.add("new session, booted", try await work.newSessions(benchmark.counts.cold) {})
        }
    }

    /// What sessions cost that do nothing, and how one of them answers then.
    mutating func measureIdle() async throws {
        try await withServer("\(counts.idle) idle sessions", Self.noPool) { benchmark, server, work in
            let count = benchmark.counts.idle
            var sessions = [try await work.session()]
            try await work.call("1+1", session: sessions[0])
            let alone = try await work.pacedCalls("1+1", "python", count: 10, pause: .seconds(1), session: sessions[0])
            benchmark.add("python 1+1 after a second, one session", alone)
            for _ in 1..<count {
                let session = try await work.session()
                try await work.call("1+1", session: session)
                sessions.append(session)
            }
            try await Task.sleep(for: .seconds(5))
            let machines = server.machines
            guard machines.count == count else {
                throw ValidationError("\(count) sessions have \(machines.count) VMs")
            }
            let shares = try await benchmark.processorShares(of: machines, during: .seconds(20))
            benchmark.add("idle session: share of a core", shares, unit: "%", budget: .atMost(0.3))
            benchmark.add("idle session: memory of its own", machines.map { $0.memory.own }, unit: "MiB")
            var times: [Double] = []
            for session in sessions {
                times += try await work.pacedCalls(
                    "1+1",
                    "python",
                    count: 1,
                    pause: .milliseconds(50),
                    session: session
                )
            }
            let budget = Budget.times(2, of: "python 1+1 after a second, one session")
            benchmark.add("python 1+1 in each of \(count) idle sessions", times, budget: budget)
        }
    }

    mutating func measureBurst() async throws {
        try await withServer("a burst", ["SWIFTLET_POOL_SIZE": "2"]) { benchmark, _, work in
            try await work.poolHas(2)
            let times = try await work.burst(benchmark.counts.burst)
            benchmark.add("burst of \(benchmark.counts.burst) new sessions", times)
        }
    }

    /// The share of a core that each process takes, in percent.
    private func processorShares(of processes: [HostProcess], during time: Duration) async throws -> [Double] {
        let before = processes.map(\.processorTime)
        try await Task.sleep(for: time)
        return zip(processes, before).map { ($0.processorTime - $1) / (time / .milliseconds(1)) * 100 }
    }
}
