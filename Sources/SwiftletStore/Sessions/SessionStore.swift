// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB
package import SwiftletCore

/// The sessions and the VM that each was last given.
package struct SessionStore: Sendable {
    let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    package func insert(_ record: SessionRecord) async throws {
        let environment = String(decoding: try JSONEncoder().encode(record.environment), as: UTF8.self)
        try await database.writer.write { database in
            try database.execute(
                sql: """
                    INSERT INTO sessions (id, owner_id, created_at, vm_lifetime_seconds, memory_mb, vcpu_count,
                        environment, metadata) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                    """,
                arguments: [
                    record.id.rawValue, record.owner.rawValue, record.createdAt.microseconds, record.vmLifetimeSeconds,
                    record.memoryMB, record.vcpuCount, environment, record.metadataJSON,
                ]
            )
        }
    }

    package func session(_ id: SessionID) async throws -> SessionRecord? {
        try await database.writer.read { database in
            let sql = "SELECT * FROM sessions WHERE id = $1"
            return try Row.fetchOne(database, sql: sql, arguments: [id.rawValue]).map(Self.record)
        }
    }

    /// Writes down the VM that a session was given, to end when the session says.
    ///
    /// - Returns: the session as it is now; nil when there is none any more, and then no VM of it may live.
    package func assign(vm: SessionVM, to session: SessionID) async throws -> SessionRecord? {
        try await database.writer.write { database in
            let started = vm.startedAt.microseconds
            let row = try Row.fetchOne(
                database,
                sql: """
                    UPDATE sessions SET vm_id = $1, vm_started_at = $2,
                        vm_expires_at = $3 + vm_lifetime_seconds * 1000000, vm_ended_at = NULL, vm_end_reason = NULL
                    WHERE id = $4 RETURNING *
                    """,
                arguments: [vm.id, started, started, session.rawValue]
            )
            guard let record = try row.map(Self.record), let assigned = record.vm else { return nil }
            try database.execute(
                sql: """
                    INSERT INTO vms (id, session_id, owner_id, started_at, expires_at, vcpu_count, memory_mb)
                    VALUES ($1, $2, $3, $4, $5, $6, $7)
                    """,
                arguments: [
                    vm.id, session.rawValue, record.owner.rawValue, started, assigned.expiresAt.microseconds,
                    record.vcpuCount, record.memoryMB,
                ]
            )
            return record
        }
    }

    /// Writes down a VM's end, once; a VM that its session no longer has changes nothing in that.
    ///
    /// - Parameter origin: where its machine came from, if it got one.
    package func endVM(
        session: SessionID,
        vmID: String,
        at moment: Date,
        reason: String,
        origin: String? = nil
    ) async throws {
        try await database.writer.write { database in
            try database.execute(
                sql: """
                    UPDATE sessions SET vm_ended_at = $1, vm_end_reason = $2
                    WHERE id = $3 AND vm_id = $4 AND vm_ended_at IS NULL
                    """,
                arguments: [moment.microseconds, reason, session.rawValue, vmID]
            )
            try database.execute(
                sql: "UPDATE vms SET ended_at = $1, end_reason = $2, origin = $3 WHERE id = $4 AND ended_at IS NULL",
                arguments: [moment.microseconds, reason, origin, vmID]
            )
        }
    }

    /// Writes down the end of all VMs that are thought to live: for a server that starts, which has none.
    ///
    /// - Returns: those VMs.
    @discardableResult
    package func endAllVMs(
        at moment: Date,
        reason: String
    ) async throws -> [(id: String, session: SessionID?, owner: UserID)] {
        try await database.writer.write { database in
            try database.execute(
                sql:
                    "UPDATE sessions SET vm_ended_at = $1, vm_end_reason = $2 WHERE vm_id IS NOT NULL AND vm_ended_at IS NULL",
                arguments: [moment.microseconds, reason]
            )
            // When it died is not known; that it lived no longer than it might is.
            let sql = """
                UPDATE vms SET ended_at = CASE WHEN expires_at < $1 THEN expires_at ELSE $2 END, end_reason = $3
                WHERE ended_at IS NULL RETURNING id, session_id, owner_id
                """
            let arguments: StatementArguments = [moment.microseconds, moment.microseconds, reason]
            return try Row.fetchAll(database, sql: sql, arguments: arguments).map { row in
                (row["id"], SessionID(rawValue: row["session_id"]), UserID(rawValue: row["owner_id"]))
            }
        }
    }

    static func record(_ row: Row) throws -> SessionRecord {
        let id: String = row["id"]
        guard let session = SessionID(rawValue: id) else {
            throw StoreError("The database has a session named '\(id)'")
        }
        let environment: String = row["environment"]
        return SessionRecord(
            id: session,
            owner: UserID(rawValue: row["owner_id"]),
            createdAt: Date(microseconds: row["created_at"]),
            vmLifetimeSeconds: row["vm_lifetime_seconds"],
            memoryMB: row["memory_mb"],
            vcpuCount: row["vcpu_count"],
            environment: try JSONDecoder().decode([String: String].self, from: Data(environment.utf8)),
            metadataJSON: row["metadata"],
            vm: vm(row)
        )
    }

    private static func vm(_ row: Row) -> SessionVM? {
        guard let id: String = row["vm_id"], let started: Int64 = row["vm_started_at"],
            let expires: Int64 = row["vm_expires_at"]
        else { return nil }
        return SessionVM(
            id: id,
            startedAt: Date(microseconds: started),
            expiresAt: Date(microseconds: expires),
            endedAt: (row["vm_ended_at"] as Int64?).map { Date(microseconds: $0) },
            endReason: row["vm_end_reason"]
        )
    }
}
