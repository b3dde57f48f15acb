// SPDX-License-Identifier: Apache-2.0

import GRDB
package import SwiftletCore

/// The rate limits: one number for each, the moment at which it is whole again.
package struct RateStore: Sendable {
    private let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    /// Counts one attempt against a limit in one transaction, and decides about it.
    ///
    /// - Parameter now: the clock in microseconds since 1970, read inside the transaction.
    package func charge(
        _ name: String,
        _ cell: GCRA,
        now: @escaping @Sendable () -> Int64
    ) async throws -> (moment: Int64, decision: RateDecision) {
        try await database.writer.write { database in
            // The row is locked from here to the end of the transaction, in PostgreSQL too.
            let stored = try Int64.fetchOne(
                database,
                sql: """
                    INSERT INTO rate_limits (name, whole_at) VALUES ($1, 0)
                    ON CONFLICT (name) DO UPDATE SET whole_at = rate_limits.whole_at RETURNING whole_at
                    """,
                arguments: [name]
            )
            let moment = now()
            let (whole, decision) = cell.charge(whole: stored ?? 0, now: moment)
            try database.execute(
                sql: "UPDATE rate_limits SET whole_at = $1 WHERE name = $2",
                arguments: [whole, name]
            )
            return (moment, decision)
        }
    }

    /// The moment at which a limit is whole again; nil when it is whole.
    package func wholeAt(_ name: String) async throws -> Int64? {
        try await database.writer.read { database in
            let sql = "SELECT whole_at FROM rate_limits WHERE name = $1"
            return try Int64.fetchOne(database, sql: sql, arguments: [name])
        }
    }

    /// Deletes the limits that were whole before a moment: a limit without a row is whole.
    package func purge(wholeBefore moment: Int64) async throws {
        try await database.writer.write { database in
            try database.execute(sql: "DELETE FROM rate_limits WHERE whole_at < $1", arguments: [moment])
        }
    }
}
