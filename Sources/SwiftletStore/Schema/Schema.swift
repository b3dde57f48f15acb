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
        accounts,
        executions,
        vms,
        audit,
        knownLogins,
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
