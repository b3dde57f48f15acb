// SPDX-License-Identifier: Apache-2.0

import GRDB

/// The tables, as numbered steps. A step that was released is never changed; later ones follow it.
enum Schema {
    private static let steps: [[String]] = [
        [
            """
            CREATE TABLE users (
                id INTEGER PRIMARY KEY,
                email TEXT NOT NULL UNIQUE,
                created_at BIGINT NOT NULL
            )
            """,
            """
            CREATE TABLE api_keys (
                id INTEGER PRIMARY KEY,
                user_id BIGINT NOT NULL REFERENCES users(id),
                hash TEXT NOT NULL UNIQUE,
                hint TEXT NOT NULL,
                label TEXT NOT NULL,
                created_at BIGINT NOT NULL,
                revoked_at BIGINT
            )
            """,
            """
            CREATE TABLE sessions (
                id TEXT PRIMARY KEY,
                owner_id BIGINT NOT NULL REFERENCES users(id),
                created_at BIGINT NOT NULL,
                vm_lifetime_seconds BIGINT NOT NULL,
                memory_mb BIGINT NOT NULL,
                vcpu_count BIGINT NOT NULL,
                environment TEXT NOT NULL,
                metadata TEXT NOT NULL,
                vm_id TEXT,
                vm_started_at BIGINT,
                vm_expires_at BIGINT,
                vm_ended_at BIGINT,
                vm_end_reason TEXT
            )
            """,
            "CREATE INDEX sessions_by_owner ON sessions(owner_id, created_at)",
        ],
        [
            """
            CREATE TABLE executions (
                number INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                owner_id BIGINT NOT NULL REFERENCES users(id),
                session_id TEXT NOT NULL,
                language TEXT NOT NULL,
                mode TEXT NOT NULL,
                state TEXT NOT NULL,
                created_at BIGINT NOT NULL,
                started_at BIGINT,
                ended_at BIGINT,
                timeout DOUBLE PRECISION,
                vm_id TEXT,
                vm_started_at BIGINT,
                restore TEXT,
                exit_code BIGINT,
                signal BIGINT,
                execution_time DOUBLE PRECISION NOT NULL,
                cpu_time DOUBLE PRECISION NOT NULL,
                state_lost BIGINT NOT NULL,
                note TEXT,
                stdout_bytes BIGINT NOT NULL,
                stdout_dropped BIGINT NOT NULL,
                stderr_bytes BIGINT NOT NULL,
                stderr_dropped BIGINT NOT NULL,
                results_bytes BIGINT NOT NULL,
                results_dropped BIGINT NOT NULL,
                output_expired_at BIGINT,
                idempotency_key TEXT,
                request_hash TEXT
            )
            """,
            "CREATE UNIQUE INDEX executions_by_key ON executions(owner_id, idempotency_key)",
            "CREATE INDEX executions_by_owner ON executions(owner_id, number)",
            "CREATE INDEX executions_by_session ON executions(session_id, number)",
            "CREATE INDEX executions_by_end ON executions(ended_at)",
            """
            CREATE TABLE execution_outputs (
                execution_id TEXT NOT NULL,
                stream TEXT NOT NULL,
                bytes BLOB NOT NULL,
                PRIMARY KEY (execution_id, stream)
            )
            """,
        ],
    ]

    /// Applies the steps that a database lacks, all or none.
    static func migrate(_ writer: any DatabaseWriter) throws {
        try writer.write { database in
            try database.execute(sql: "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
            let version = try Int.fetchOne(database, sql: "SELECT MAX(version) FROM schema_version") ?? 0
            guard version <= steps.count else {
                throw StoreError(
                    "The database has version \(version) and this server knows \(steps.count): "
                        + "start the newer server, or another data directory"
                )
            }
            for (index, step) in steps.enumerated().dropFirst(version) {
                for statement in step { try database.execute(sql: statement) }
                try database.execute(sql: "INSERT INTO schema_version (version) VALUES ($1)", arguments: [index + 1])
            }
        }
    }
}
