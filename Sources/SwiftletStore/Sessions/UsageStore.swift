// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB
package import SwiftletCore

/// Computes usage from the rows of all VMs, running ones included up to now.
package struct UsageStore: Sendable {
    private let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    /// The usage of a session. The caller has checked its owner.
    package func usage(of session: SessionID, now: Date = Date()) async throws -> SessionUsage {
        try await database.writer.read { database in
            let sql = "SELECT started_at, ended_at, vcpu_count, memory_mb FROM vms WHERE session_id = $1"
            var usage = SessionUsage()
            let rows = try Row.fetchCursor(database, sql: sql, arguments: [session.rawValue])
            while let row = try rows.next() {
                let (start, end) = Self.life(row, now: now)
                let seconds = max(0, end.timeIntervalSince(start))
                usage.vmCount += 1
                usage.vms.add(seconds: seconds, vcpuCount: row["vcpu_count"], memoryMB: row["memory_mb"])
            }
            try Self.addExecutions(of: session, to: &usage, in: database)
            return usage
        }
    }

    private static func addExecutions(
        of session: SessionID,
        to usage: inout SessionUsage,
        in database: GRDB.Database
    ) throws {
        let sql = """
            SELECT COUNT(*) AS number, COALESCE(SUM(cpu_time), 0) AS cpu, COALESCE(SUM(execution_time), 0) AS wall,
                COALESCE(SUM(stdout_bytes + stderr_bytes + results_bytes), 0) AS bytes
            FROM executions WHERE session_id = $1 AND ended_at IS NOT NULL
            """
        guard let row = try Row.fetchOne(database, sql: sql, arguments: [session.rawValue]) else { return }
        usage.executionCount = row["number"]
        usage.cpuTime = row["cpu"]
        usage.executionTime = row["wall"]
        usage.outputBytes = row["bytes"]
    }

    /// The usage of an owner's VMs on each day of a period.
    package func daily(of owner: UserID, _ days: ClosedRange<UTCDay>, now: Date = Date()) async throws -> DailyUsage {
        try await database.writer.read { database in
            let sql = """
                SELECT started_at, ended_at, vcpu_count, memory_mb FROM vms
                WHERE owner_id = $1 AND started_at < $2 AND (ended_at IS NULL OR ended_at > $3)
                """
            let begin = days.lowerBound.start.microseconds
            let end = days.upperBound.advanced(by: 1).start.microseconds
            var usage = DailyUsage(days)
            let rows = try Row.fetchCursor(database, sql: sql, arguments: [owner.rawValue, end, begin])
            while let row = try rows.next() {
                let (start, end) = Self.life(row, now: now)
                usage.add(from: start, to: end, vcpuCount: row["vcpu_count"], memoryMB: row["memory_mb"])
            }
            return usage
        }
    }

    private static func life(_ row: Row, now: Date) -> (start: Date, end: Date) {
        let ended: Int64? = row["ended_at"]
        return (Date(microseconds: row["started_at"]), ended.map { Date(microseconds: $0) } ?? now)
    }
}
