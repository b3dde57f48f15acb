// SPDX-License-Identifier: Apache-2.0

import AgentClient
package import Foundation
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
package import SwiftletCore
import SwiftletStore

/// How long and how much is kept of executions.
package struct RetentionLimits: Sendable {
    /// Seconds that an output is kept after its execution's end.
    package var outputSeconds = 86_400
    /// Bytes of all outputs together; the longest ended go first.
    package var outputBytes = 10 << 30
    /// Seconds that a record is kept after its execution's end.
    package var recordSeconds = 30 * 86_400
    /// Seconds that an idempotency key stands for its first request.
    package var keySeconds = 86_400

    package init() {}
}

/// What goes on beside the executions: nothing that a crash could lose stays in memory for long, and nothing is kept for ever.
extension ExecutionService {
    /// Executions that take longer than this are written down while they run.
    private static let longTime: Duration = .milliseconds(500)
    private static let purgeInterval: Duration = .seconds(60)

    /// Records the end of all that ran when the last server of this directory ended. To be called once, before ``run()`` and before
    /// any request comes.
    package func recover() async throws {
        let directory = configuration.directory
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        for record in try await store.unfinished() {
            // A record that cannot be changed does not keep the others back; the next start tries again.
            await attempt("A lost execution could not be recorded") { try await recordLoss(record) }
        }
        archive.budget.add(try await store.outputBytes())
        try await archive.removeStrays()
    }

    private func recordLoss(_ record: ExecutionRecord) async throws {
        var record = record
        let wasRunning = record.startedAt != nil
        record.state = .nodeLost
        record.endedAt = time.date
        record.note = "The server ended before the execution did" + (wasRunning ? "" : "; its code may not have run")
        record.sizes = try await archive.sizesInFiles(of: record.id)
        try await store.update(record)
        logger.notice("An execution was lost with the last server", metadata: ["execution.id": "\(record.id)"])
    }

    /// Runs until it is cancelled.
    func maintain() async {
        var written: Set<ExecutionID> = []
        var nextPurge = time.now
        while !Task.isCancelled {
            await recordLongOnes(&written)
            await recordEnds()
            // Much output at once must not wait for its turn.
            if time.now >= nextPurge || archive.budget.excess > 0 {
                await attempt("Old executions could not be purged") { try await purge(at: time.date) }
                nextPurge = time.now + Self.purgeInterval
            }
            // Cancellation ends the sleep, and then the loop.
            try? await time.sleep(for: Self.longTime)
        }
    }

    private func recordLongOnes(_ written: inout Set<ExecutionID>) async {
        written.formIntersection(running.keys)
        let moment = time.date.addingTimeInterval(-Self.longTime.seconds)
        for execution in running.values {
            let record = execution.handle.record
            guard let started = record.startedAt, started < moment, !record.state.isFinal else { continue }
            let logs = ExecutionStream.allCases.map { execution.handle.log(of: $0) }
            await attempt("A running execution could not be recorded") {
                for log in logs { try await log.persist() }
                if !written.contains(record.id), running[record.id] != nil { try await store.begin(record) }
            }
            written.insert(record.id)
        }
    }

    /// Throws away what is over its time or too much.
    package func purge(at moment: Date) async throws {
        let limits = configuration.retention
        func ago(_ seconds: Int) -> Date { moment.addingTimeInterval(-Double(seconds)) }
        while case let old = try await store.outputs(endedBefore: ago(limits.outputSeconds)), !old.isEmpty {
            try await archive.expire(old, at: moment)
        }
        var excess = archive.budget.excess
        while excess > 0 {
            let oldest = try await store.oldestOutputs().prefix { output in
                defer { excess -= output.bytes }
                return excess > 0
            }
            // What is still being written cannot be thrown away.
            guard !oldest.isEmpty else { break }
            try await archive.expire(Array(oldest), at: moment)
        }
        try await store.expireKeys(createdBefore: ago(limits.keySeconds))
        while try await store.removeRecords(endedBefore: ago(limits.recordSeconds)) > 0 {}
    }

    /// Does what must not fail its caller; a failure is the operator's.
    func attempt(_ failure: String, _ body: () async throws -> Void) async {
        do {
            try await body()
        } catch is CancellationError {
            // The server is being stopped.
        } catch {
            Logger.current.error("\(failure)", metadata: ["error": "\(error)"])
        }
    }

    /// Takes nothing new, waits until all has ended, and ends what has not within a time.
    ///
    /// - Returns: what was cut off.
    package func drain(within limit: Duration) async -> [ExecutionRecord] {
        stopAccepting()
        await waitForEnds(until: .now + limit)
        let cut = Array(running.values)
        for execution in cut { execution.cancel("The server was stopped") }
        await waitForEnds(until: .now + .seconds(3))
        return cut.map(\.handle.record)
    }

    private func waitForEnds(until deadline: ContinuousClock.Instant) async {
        while let execution = running.values.first, ContinuousClock.now < deadline, !Task.isCancelled {
            let version = execution.handle.version
            if execution.handle.isFinal {
                // It is being written down, which makes no change. Cancellation ends the sleep, and then the loop.
                try? await Task.sleep(for: .milliseconds(5))
            } else {
                await execution.handle.waitForChange(after: version, within: .until(deadline))
            }
        }
    }
}

/// Lets executions end before anything that they need does: the service that is stopped first.
package struct ExecutionDrain: Service {
    private let executions: ExecutionService
    private let sessions: SessionService
    private let limit: Duration

    package init(executions: ExecutionService, sessions: SessionService, limit: Duration) {
        self.executions = executions
        self.sessions = sessions
        self.limit = limit
    }

    package func run() async throws {
        try await gracefulShutdown()
        await sessions.stopAccepting()
        let cut = await executions.drain(within: limit)
        for record in cut {
            executions.logger.warning(
                "An execution was cut off: it did not end before the server had to",
                metadata: ["execution.id": "\(record.id)", "session.id": "\(record.session)"]
            )
        }
    }
}
