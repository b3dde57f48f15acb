// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB
import Synchronization

/// Limits of rates, kept in the database: exact across all processes that use it, and as they were after a restart.
package final class RateLimiter: Sendable {
    /// A refusal stands until its end whatever others do, so that a flood of refused attempts never reaches the database.
    private struct Refusal {
        let rate: Plan.Rate
        let from: Int64
        let until: Int64
    }

    private static let maximumRefusals = 10_000
    private let database: Database
    private let now: @Sendable () -> Date
    private let refusals = Mutex<[String: Refusal]>([:])

    /// - Parameter now: the clock; it may be set back at any time.
    package init(_ database: Database, now: @escaping @Sendable () -> Date = { Date() }) {
        self.database = database
        self.now = now
    }

    /// Counts one attempt against a limit, and decides about it.
    package func charge(_ name: String, _ rate: Plan.Rate) async throws -> RateDecision {
        if let refusal = standingRefusal(name, rate) { return refusal }
        let cell = CellRate(rate)
        let (moment, decision) = try await database.writer.write { [now] database in
            // The row is locked from here to the end of the transaction, in PostgreSQL too.
            let stored = try Int64.fetchOne(
                database,
                sql: """
                    INSERT INTO rate_limits (name, whole_at) VALUES ($1, 0)
                    ON CONFLICT (name) DO UPDATE SET whole_at = rate_limits.whole_at RETURNING whole_at
                    """,
                arguments: [name]
            )
            let moment = now().microseconds
            let (whole, decision) = cell.charge(whole: stored ?? 0, now: moment)
            try database.execute(
                sql: "UPDATE rate_limits SET whole_at = $1 WHERE name = $2",
                arguments: [whole, name]
            )
            return (moment, decision)
        }
        if !decision.isAdmitted { remember(name, rate, decision, at: moment) }
        return decision
    }

    /// What an attempt would meet now; counts nothing.
    package func status(_ name: String, _ rate: Plan.Rate) async throws -> RateDecision {
        let stored = try await database.writer.read { database in
            let sql = "SELECT whole_at FROM rate_limits WHERE name = $1"
            return try Int64.fetchOne(database, sql: sql, arguments: [name])
        }
        return CellRate(rate).status(whole: stored ?? 0, now: now().microseconds)
    }

    /// Forgets the limits that are whole: having no row is the same.
    package func purge() async throws {
        let moment = now().microseconds
        try await database.writer.write { database in
            try database.execute(sql: "DELETE FROM rate_limits WHERE whole_at < $1", arguments: [moment])
        }
    }

    private func standingRefusal(_ name: String, _ rate: Plan.Rate) -> RateDecision? {
        guard let refusal = refusals.withLock({ $0[name] }), refusal.rate == rate else { return nil }
        let moment = now().microseconds
        // Before its beginning means that the clock was set back: the database knows what to do then.
        guard (refusal.from..<refusal.until).contains(moment) else {
            refusals.withLock { $0[name] = nil }
            return nil
        }
        let cell = CellRate(rate)
        let whole = refusal.until + cell.interval * (cell.burst - 1)
        var decision = cell.status(whole: whole, now: moment)
        decision.isAdmitted = false
        return decision
    }

    private func remember(_ name: String, _ rate: Plan.Rate, _ decision: RateDecision, at moment: Int64) {
        let until = moment + Int64(decision.retryAfter * 1e6)
        refusals.withLock { refusals in
            if refusals.count >= Self.maximumRefusals { refusals.removeAll() }
            refusals[name] = Refusal(rate: rate, from: moment, until: until)
        }
    }
}
