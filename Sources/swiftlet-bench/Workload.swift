// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletClient

/// The calls that a benchmark makes, as any client would.
struct Workload: Sendable {
    let client: APIClient

    /// Milliseconds that something takes.
    static func time(_ body: () async throws -> Void) async throws -> Double {
        let started = ContinuousClock.now
        try await body()
        return (ContinuousClock.now - started) / .milliseconds(1)
    }

    /// Runs code and expects success.
    @discardableResult
    func call(_ code: String, _ language: String = "python", session: String?) async throws -> ExecuteReply {
        let reply = try await client.execute(
            ExecuteBody(command: code, language: language, sessionID: session, timeout: 300)
        )
        guard reply.exitCode == 0 else {
            throw ValidationError("\(code) ended with \(reply.exitCode): \(reply.stderr)")
        }
        return reply
    }

    /// A session of a shape; nil takes the server's own.
    func session(memoryMB: Int? = nil) async throws -> String {
        struct Body: Encodable {
            let api_key: String
            let vm_lifetime_seconds: Int
            let memory_mb: Int?
        }
        struct Reply: Decodable {
            let session_id: String
        }
        let body = Body(api_key: client.key, vm_lifetime_seconds: 600, memory_mb: memoryMB)
        // As long as a call: a burst waits for its turn here.
        let data = try await client.post(
            "/v1/sessions/session",
            body: try JSONEncoder().encode(body),
            timeout: .seconds(310)
        )
        return try JSONDecoder().decode(Reply.self, from: data).session_id
    }

    func kill(_ session: String) async throws {
        _ = try await client.post("/kill", body: try JSONEncoder().encode(["session_id": session]))
    }

    /// New sessions, one after another, each with its first call.
    ///
    /// - Parameters:
    ///   - code: the first call.
    ///   - ready: waited for before each, not measured.
    func newSessions(_ count: Int, code: String = "1+1", ready: () async throws -> Void) async throws -> [Double] {
        var samples: [Double] = []
        for _ in 0..<count {
            try await ready()
            var session = ""
            samples.append(
                try await Self.time {
                    session = try await self.session()
                    try await call(code, session: session)
                }
            )
            try await kill(session)
        }
        return samples
    }

    /// Calls of so many clients at once, each with a session of its own.
    func warmCalls(_ code: String, _ language: String, count: Int, sessions: [String]) async throws -> [Double] {
        let each = max(1, count / sessions.count)
        return try await withThrowingTaskGroup(of: [Double].self) { group in
            for session in sessions {
                group.addTask {
                    // What the guest's emulator translates once is not measured.
                    for _ in 0..<min(30, each) { try await call(code, language, session: session) }
                    var samples: [Double] = []
                    for _ in 0..<each {
                        samples.append(try await Self.time { try await call(code, language, session: session) })
                    }
                    return samples
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
    }

    /// Calls of one session, each so long after the last one's end.
    func pacedCalls(
        _ code: String,
        _ language: String,
        count: Int,
        pause: Duration,
        session: String
    ) async throws -> [Double] {
        var samples: [Double] = []
        for _ in 0..<count {
            try await Task.sleep(for: pause)
            samples.append(try await Self.time { try await call(code, language, session: session) })
        }
        return samples
    }

    /// So many new sessions at once, each with its first call; then they are killed.
    func burst(_ count: Int) async throws -> [Double] {
        try await withThrowingTaskGroup(of: (Double, String).self) { group in
            for _ in 0..<count {
                group.addTask {
                    var session = ""
                    let time = try await Self.time {
                        session = try await self.session()
                        try await call("1+1", session: session)
                    }
                    return (time, session)
                }
            }
            var samples: [Double] = []
            var sessions: [String] = []
            for try await (time, session) in group {
                samples.append(time)
                sessions.append(session)
            }
            for session in sessions { try await kill(session) }
            return samples
        }
    }

    /// Waits until so many machines wait in pools.
    func poolHas(_ count: Int, within limit: Duration = .seconds(180)) async throws {
        let deadline = ContinuousClock.now + limit
        while try await waitingMachines() < count {
            guard ContinuousClock.now < deadline else {
                throw ValidationError("No pool of \(count) within \(limit); is the server's poolSize smaller?")
            }
            try await Task.sleep(for: .milliseconds(50))
        }
        // The refill that filled it is over, and so is its clean-up.
        try await Task.sleep(for: .milliseconds(300))
    }

    func waitingMachines() async throws -> Int {
        let text = try await client.get("/metrics")
        return text.split(separator: "\n").filter { $0.hasPrefix("swiftlet_pool_machines") }
            .reduce(0) { $0 + Int(Double($1.split(separator: " ").last ?? "") ?? 0) }
    }
}
