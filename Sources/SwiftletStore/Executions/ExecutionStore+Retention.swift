// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB
package import SwiftletCore

/// Deletes outputs and records after their retention.
extension ExecutionStore {
    /// The output of an execution that is over.
    package struct KeptOutput: Equatable, Sendable {
        package var id: ExecutionID
        package var bytes: Int
    }

    /// Outputs of executions that ended before a moment; the longest ended first, a batch at a time.
    package func outputs(endedBefore moment: Date, limit: Int = 500) async throws -> [KeptOutput] {
        try await outputs("ended_at < \(moment.microseconds)", limit: limit)
    }

    /// Outputs that have any bytes; the longest ended first, a batch at a time.
    package func oldestOutputs(limit: Int = 500) async throws -> [KeptOutput] {
        let condition = "ended_at IS NOT NULL AND stdout_bytes + stderr_bytes + results_bytes > 0"
        return try await outputs(condition, limit: limit)
    }

    private func outputs(_ condition: String, limit: Int) async throws -> [KeptOutput] {
        try await database.writer.read { database in
            let sql = """
                SELECT id, stdout_bytes + stderr_bytes + results_bytes AS bytes FROM executions
                WHERE output_expired_at IS NULL AND \(condition) ORDER BY ended_at LIMIT \(limit)
                """
            return try Row.fetchAll(database, sql: sql).compactMap { row in
                ExecutionID(rawValue: row["id"]).map { KeptOutput(id: $0, bytes: row["bytes"]) }
            }
        }
    }

    /// Bytes of output that are kept in all.
    package func outputBytes() async throws -> Int {
        try await database.writer.read { database in
            let sql = """
                SELECT COALESCE(SUM(stdout_bytes + stderr_bytes + results_bytes), 0) FROM executions
                WHERE ended_at IS NOT NULL AND output_expired_at IS NULL
                """
            return try Int.fetchOne(database, sql: sql) ?? 0
        }
    }

    /// Throws outputs away and writes down that they are gone.
    package func expireOutput(of ids: [ExecutionID], at moment: Date) async throws {
        try await database.writer.write { database in
            for id in ids {
                let sql = "DELETE FROM execution_outputs WHERE execution_id = $1"
                try database.execute(sql: sql, arguments: [id.rawValue])
                try database.execute(
                    sql: "UPDATE executions SET output_expired_at = $1 WHERE id = $2",
                    arguments: [moment.microseconds, id.rawValue]
                )
            }
        }
    }

    /// Forgets the key of an execution of which nothing ran: a retry runs.
    package func releaseKey(of id: ExecutionID) async throws {
        try await database.writer.write { database in
            try database.execute(
                sql: "UPDATE executions SET idempotency_key = NULL, request_hash = NULL WHERE id = $1",
                arguments: [id.rawValue]
            )
        }
    }

    /// Forgets keys of executions made before a moment: a retry after that runs anew.
    package func expireKeys(createdBefore moment: Date) async throws {
        try await database.writer.write { database in
            try database.execute(
                sql: """
                    UPDATE executions SET idempotency_key = NULL, request_hash = NULL
                    WHERE idempotency_key IS NOT NULL AND created_at < $1
                    """,
                arguments: [moment.microseconds]
            )
        }
    }

    /// Forgets executions that ended before a moment and whose output is gone; returns how many, at most a batch.
    package func removeRecords(endedBefore moment: Date, limit: Int = 500) async throws -> Int {
        try await database.writer.write { database in
            try database.execute(
                sql: """
                    DELETE FROM executions WHERE number IN (
                        SELECT number FROM executions WHERE ended_at < $1 AND output_expired_at IS NOT NULL
                        ORDER BY ended_at LIMIT \(limit)
                    )
                    """,
                arguments: [moment.microseconds]
            )
            return database.changesCount
        }
    }

    /// Which of these executions the database knows.
    package func known(_ ids: [ExecutionID]) async throws -> Set<ExecutionID> {
        try await database.writer.read { database in
            try Set(
                ids.filter { id in
                    let sql = "SELECT 1 FROM executions WHERE id = $1 AND output_expired_at IS NULL"
                    return try Int.fetchOne(database, sql: sql, arguments: [id.rawValue]) != nil
                }
            )
        }
    }
}
