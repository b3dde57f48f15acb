// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB
package import SwiftletCore

extension SessionStore {
    /// Changes a session, and when its living VM ends.
    ///
    /// - Returns: the session as it is now; nil when there is none, or when it would live shorter than before.
    package func update(_ id: SessionID, _ change: SessionChange) async throws -> SessionRecord? {
        try await database.writer.write { database in
            let sql = """
                UPDATE sessions SET vm_lifetime_seconds = COALESCE($1, vm_lifetime_seconds),
                    vm_expires_at = vm_started_at + COALESCE($2, vm_lifetime_seconds) * 1000000,
                    metadata = COALESCE($3, metadata)
                WHERE id = $4 AND vm_lifetime_seconds <= COALESCE($5, vm_lifetime_seconds)
                RETURNING *
                """
            let seconds = change.vmLifetimeSeconds
            let row = try Row.fetchOne(
                database,
                sql: sql,
                arguments: [seconds, seconds, change.metadataJSON, id.rawValue, seconds]
            )
            guard let record = try row.map(Self.record) else { return nil }
            if let vm = record.vm {
                try database.execute(
                    sql: "UPDATE vms SET expires_at = $1 WHERE id = $2 AND ended_at IS NULL",
                    arguments: [vm.expiresAt.microseconds, vm.id]
                )
            }
            return record
        }
    }

    /// An owner's sessions whose VM lives, as far as is written down; the youngest VM first.
    package func living(of owner: UserID) async throws -> [SessionRecord] {
        try await database.writer.read { database in
            let sql = """
                SELECT * FROM sessions WHERE owner_id = $1 AND vm_id IS NOT NULL AND vm_ended_at IS NULL
                ORDER BY vm_started_at DESC, id
                """
            return try Row.fetchAll(database, sql: sql, arguments: [owner.rawValue]).map(Self.record)
        }
    }

    /// Deletes a session; the rows of its VMs stay, for the usage. False when there is none.
    package func delete(_ id: SessionID) async throws -> Bool {
        try await database.writer.write { database in
            let sql = "DELETE FROM sessions WHERE id = $1 RETURNING id"
            return try Row.fetchOne(database, sql: sql, arguments: [id.rawValue]) != nil
        }
    }

    /// Forgets VMs that ended before a moment, and sessions that had none since.
    ///
    /// - Parameter limit: how many of each table, so that other writers do not wait long.
    /// - Returns: the sessions that were deleted, and whether there may be more to delete.
    package func purge(
        before moment: Date,
        limit: Int
    ) async throws -> (sessions: [(id: SessionID, owner: UserID)], hasMore: Bool) {
        try await database.writer.write { database in
            try database.execute(
                sql: "DELETE FROM vms WHERE id IN (SELECT id FROM vms WHERE ended_at < $1 LIMIT $2)",
                arguments: [moment.microseconds, limit]
            )
            let vms = database.changesCount
            let rows = try Row.fetchAll(
                database,
                sql: """
                    DELETE FROM sessions WHERE id IN (
                        SELECT id FROM sessions WHERE vm_ended_at < $1 OR (vm_id IS NULL AND created_at < $2) LIMIT $3)
                    RETURNING id, owner_id
                    """,
                arguments: [moment.microseconds, moment.microseconds, limit]
            )
            let sessions = rows.compactMap { row in
                SessionID(rawValue: row["id"]).map { (id: $0, owner: UserID(rawValue: row["owner_id"])) }
            }
            return (sessions, max(vms, rows.count) == limit)
        }
    }
}
