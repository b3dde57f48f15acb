// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRDB
package import SwiftletCore

/// The executions and their small outputs.
package struct ExecutionStore: Sendable {
    /// Which executions a list is to have.
    package struct Filter: Sendable {
        package var owner: UserID
        package var session: SessionID?
        package var states: Set<ExecutionState>?
        package var language: String?
        /// Only those that were made before this one.
        package var before: ExecutionID?
        package var limit: Int

        package init(
            owner: UserID,
            session: SessionID? = nil,
            states: Set<ExecutionState>? = nil,
            language: String? = nil,
            before: ExecutionID? = nil,
            limit: Int = 100
        ) {
            self.owner = owner
            self.session = session
            self.states = states
            self.language = language
            self.before = before
            self.limit = limit
        }
    }

    let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    // MARK: Writing

    /// Writes down a new execution.
    ///
    /// - Returns: false when its idempotency key is taken, or it is there already; nothing is written then.
    package func insert(_ record: ExecutionRecord) async throws -> Bool {
        try await database.writer.write { database in
            try database.execute(
                sql: """
                    INSERT INTO executions (id, owner_id, session_id, language, mode, state, created_at, timeout,
                        execution_time, cpu_time, state_lost, stdout_bytes, stdout_dropped, stderr_bytes,
                        stderr_dropped, results_bytes, results_dropped, idempotency_key, request_hash)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, 0, 0, 0, 0, 0, 0, 0, $9, $10)
                    ON CONFLICT DO NOTHING
                    """,
                arguments: [
                    record.id.rawValue, record.owner.rawValue, record.session.rawValue, record.language,
                    record.mode.rawValue, record.state.rawValue, record.createdAt.microseconds, record.timeout,
                    record.idempotency?.key, record.idempotency?.requestHash,
                ]
            )
            return database.changesCount == 1
        }
    }

    /// Writes down that an execution's code runs, unless its end is written down already.
    package func begin(_ record: ExecutionRecord) async throws {
        try await database.writer.write { database in
            try database.execute(
                sql: """
                    UPDATE executions SET state = $1, started_at = $2, vm_id = $3, vm_started_at = $4
                    WHERE id = $5 AND ended_at IS NULL
                    """,
                arguments: [
                    record.state.rawValue, record.startedAt?.microseconds, record.vmID,
                    record.vmStartedAt?.microseconds, record.id.rawValue,
                ]
            )
        }
    }

    /// Stores an execution's result, with those of its outputs that are small enough for the database.
    package func update(_ record: ExecutionRecord, outputs: [ExecutionStream: [UInt8]] = [:]) async throws {
        let restore = try record.restore.map { String(decoding: try JSONEncoder().encode($0), as: UTF8.self) }
        try await database.writer.write { database in
            try Self.update(record, restore: restore, in: database)
            for (stream, bytes) in outputs where !bytes.isEmpty {
                try database.execute(
                    sql: """
                        INSERT INTO execution_outputs (execution_id, stream, bytes) VALUES ($1, $2, $3)
                        ON CONFLICT (execution_id, stream) DO UPDATE SET bytes = excluded.bytes
                        """,
                    arguments: [record.id.rawValue, stream.rawValue, Data(bytes)]
                )
            }
        }
    }

    private static func update(_ record: ExecutionRecord, restore: String?, in database: GRDB.Database) throws {
        let sizes = [ExecutionStream.stdout, .stderr, .results].map(record.size)
        try database.execute(
            sql: """
                UPDATE executions SET state = $1, started_at = $2, ended_at = $3, vm_id = $4, vm_started_at = $5,
                    restore = $6, exit_code = $7, signal = $8, execution_time = $9, cpu_time = $10,
                    state_lost = $11, note = $12, stdout_bytes = $13, stdout_dropped = $14, stderr_bytes = $15,
                    stderr_dropped = $16, results_bytes = $17, results_dropped = $18
                WHERE id = $19
                """,
            arguments: [
                record.state.rawValue, record.startedAt?.microseconds, record.endedAt?.microseconds, record.vmID,
                record.vmStartedAt?.microseconds, restore, record.exitCode, record.signal,
                record.executionTime, record.cpuTime, record.stateLost ? 1 : 0, record.note, sizes[0].bytes,
                sizes[0].dropped, sizes[1].bytes, sizes[1].dropped, sizes[2].bytes, sizes[2].dropped,
                record.id.rawValue,
            ]
        )
    }

    /// Forgets an execution of which nothing ran.
    package func remove(_ id: ExecutionID) async throws {
        try await database.writer.write { database in
            try database.execute(sql: "DELETE FROM executions WHERE id = $1", arguments: [id.rawValue])
        }
    }

    // MARK: Reading

    /// An execution of this owner; nil for an unknown one and another's.
    package func execution(_ id: ExecutionID, owner: UserID) async throws -> ExecutionRecord? {
        try await one("id = $1 AND owner_id = $2", [id.rawValue, owner.rawValue])
    }

    /// The execution that an owner's idempotency key stands for.
    package func execution(key: String, owner: UserID) async throws -> ExecutionRecord? {
        try await one("owner_id = $1 AND idempotency_key = $2", [owner.rawValue, key])
    }

    private func one(_ condition: String, _ arguments: StatementArguments) async throws -> ExecutionRecord? {
        try await database.writer.read { database in
            try Row.fetchOne(database, sql: "SELECT * FROM executions WHERE \(condition)", arguments: arguments)
                .map(Self.record)
        }
    }

    /// Executions, the newest first.
    package func list(_ filter: Filter) async throws -> [ExecutionRecord] {
        var conditions = ["owner_id = $1"]
        var values: [(any DatabaseValueConvertible)?] = [filter.owner.rawValue]
        func add(_ condition: (String) -> String, _ value: any DatabaseValueConvertible) {
            values.append(value)
            conditions.append(condition("$\(values.count)"))
        }
        if let session = filter.session { add({ "session_id = \($0)" }, session.rawValue) }
        if let language = filter.language { add({ "language = \($0)" }, language) }
        if let before = filter.before {
            add({ "number < (SELECT number FROM executions WHERE id = \($0))" }, before.rawValue)
        }
        if let states = filter.states {
            // Words of ours, not the caller's.
            let list = states.map { "'\($0.rawValue)'" }.sorted().joined(separator: ", ")
            conditions.append("state IN (\(list))")
        }
        let sql = """
            SELECT * FROM executions WHERE \(conditions.joined(separator: " AND "))
            ORDER BY number DESC LIMIT \(filter.limit)
            """
        let arguments = StatementArguments(values)
        return try await database.writer.read { database in
            try Row.fetchAll(database, sql: sql, arguments: arguments).map(Self.record)
        }
    }

    /// A stream's bytes, if they are kept here.
    package func output(of id: ExecutionID, _ stream: ExecutionStream) async throws -> [UInt8]? {
        try await database.writer.read { database in
            let sql = "SELECT bytes FROM execution_outputs WHERE execution_id = $1 AND stream = $2"
            return try Data.fetchOne(database, sql: sql, arguments: [id.rawValue, stream.rawValue]).map(Array.init)
        }
    }

    /// Executions that have no end yet.
    package func unfinished() async throws -> [ExecutionRecord] {
        try await database.writer.read { database in
            let sql = "SELECT * FROM executions WHERE ended_at IS NULL ORDER BY number"
            return try Row.fetchAll(database, sql: sql).map(Self.record)
        }
    }

    static func record(_ row: Row) throws -> ExecutionRecord {
        guard let id = ExecutionID(rawValue: row["id"]), let session = SessionID(rawValue: row["session_id"]),
            let mode = ExecutionMode(rawValue: row["mode"]), let state = ExecutionState(rawValue: row["state"])
        else { throw StoreError("The database holds an execution that this server does not understand") }
        var record = ExecutionRecord(
            id: id,
            owner: UserID(rawValue: row["owner_id"]),
            session: session,
            language: row["language"],
            mode: mode,
            state: state,
            createdAt: Date(microseconds: row["created_at"]),
            timeout: row["timeout"]
        )
        record.startedAt = date(row["started_at"])
        record.endedAt = date(row["ended_at"])
        record.vmID = row["vm_id"]
        record.vmStartedAt = date(row["vm_started_at"])
        record.restore = try (row["restore"] as String?).map {
            try JSONDecoder().decode(RestoreRecord.self, from: Data($0.utf8))
        }
        record.exitCode = row["exit_code"]
        record.signal = row["signal"]
        record.executionTime = row["execution_time"]
        record.cpuTime = row["cpu_time"]
        record.stateLost = row["state_lost"] as Int != 0
        record.note = row["note"]
        for stream in ExecutionStream.allCases {
            record.sizes[stream] = .init(bytes: row["\(stream)_bytes"], dropped: row["\(stream)_dropped"])
        }
        record.outputExpiredAt = date(row["output_expired_at"])
        if let key: String = row["idempotency_key"], let hash: String = row["request_hash"] {
            record.idempotency = IdempotencyClaim(key: key, requestHash: hash)
        }
        return record
    }

    private static func date(_ microseconds: Int64?) -> Date? {
        microseconds.map { Date(microseconds: $0) }
    }
}
