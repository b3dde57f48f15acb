// SPDX-License-Identifier: Apache-2.0

import Crypto
package import Foundation
import GRDB

/// Attempts to log in, counted for each account and each address in the database, and slowed down more and more.
///
/// An attempt counts as failed from its beginning, so that many at once are no way around the count; its success takes that back.
package struct LoginAttempts: Sendable {
    /// How many failures are free, and how long the longest pause is.
    struct Rule {
        let free: Int
        let longest: Int64

        /// Microseconds until the next attempt after so many failures.
        func pause(after failures: Int) -> Int64 {
            let exponent = failures - free
            return exponent <= 0 ? 0 : min(longest, Int64(1) << min(exponent - 1, 30)) * 1_000_000
        }
    }

    /// An account's pause is short enough that nobody can shut its owner out for long.
    static let accountRule = Rule(free: 5, longest: 300)
    /// Many people may share an address.
    static let addressRule = Rule(free: 20, longest: 900)
    /// Microseconds after which failures are forgotten.
    private static let memory: Int64 = 3_600_000_000

    private let database: Database
    private let now: @Sendable () -> Date

    package init(_ database: Database, now: @escaping @Sendable () -> Date = { Date() }) {
        self.database = database
        self.now = now
    }

    /// Begins an attempt.
    ///
    /// - Returns: nil when it may go on, else the seconds until another may; such an attempt counts as none.
    package func begin(email: String, address: String) async throws -> Int? {
        try await database.writer.write { [now] database in
            var states: [State] = []
            // Whoever must wait leaves no trace of the accounts that they ask for.
            for (name, rule) in Self.rules(email, address) {
                let state = try State(name, rule, database, now: now().microseconds)
                if let wait = state.wait { return wait }
                states.append(state)
            }
            for state in states { try state.countFailure(database) }
            return nil
        }
    }

    /// Takes back that an attempt counted as failed. The account's failures are forgotten, the address's others are not: else
    /// whoever has one account could try others without end.
    package func succeeded(email: String, address: String) async throws {
        let rules = Self.rules(email, address)
        try await database.writer.write { database in
            try database.execute(sql: "DELETE FROM login_attempts WHERE name = $1", arguments: [rules[1].name])
            try Self.withdraw(rules[0].name, database)
        }
    }

    /// Takes back an attempt that was not carried out.
    package func withdraw(email: String, address: String) async throws {
        try await database.writer.write { database in
            for (name, _) in Self.rules(email, address) { try Self.withdraw(name, database) }
        }
    }

    /// Forgets what is too old to count.
    package func purge() async throws {
        let oldest = now().microseconds - Self.memory
        try await database.writer.write { database in
            let sql = "DELETE FROM login_attempts WHERE updated_at < $1 AND blocked_until < $1"
            try database.execute(sql: sql, arguments: [oldest])
        }
    }

    private static func withdraw(_ name: String, _ database: GRDB.Database) throws {
        let sql = """
            UPDATE login_attempts SET failures = failures - 1, blocked_until = 0 WHERE name = $1 AND failures > 0
            """
        try database.execute(sql: sql, arguments: [name])
    }

    /// Names by digests: what was typed as an address may be a password.
    private static func rules(_ email: String, _ address: String) -> [(name: String, rule: Rule)] {
        let digest = SHA256.hash(data: Data(email.lowercased().utf8)).hexadecimal
        return [("address:" + address.prefix(64), addressRule), ("account:" + digest, accountRule)]
    }

    /// What is known of an account or address within a transaction.
    private struct State {
        let name: String
        let rule: Rule
        let now: Int64
        let failures: Int
        /// Seconds until the next attempt; nil when it may be made.
        let wait: Int?

        /// Reads the row, and locks it to the end of the transaction, in PostgreSQL too.
        init(_ name: String, _ rule: Rule, _ database: GRDB.Database, now: Int64) throws {
            let row = try Row.fetchOne(
                database,
                sql: """
                    INSERT INTO login_attempts (name, failures, blocked_until, updated_at) VALUES ($1, 0, 0, $2)
                    ON CONFLICT (name) DO UPDATE SET failures = login_attempts.failures
                    RETURNING failures, blocked_until, updated_at
                    """,
                arguments: [name, now]
            )
            self.name = name
            self.rule = rule
            self.now = now
            let updatedAt: Int64 = row?["updated_at"] ?? now
            failures = now - updatedAt > LoginAttempts.memory ? 0 : row?["failures"] ?? 0
            // Further away than the pause was long was written before the clock was set back.
            let left = min((row?["blocked_until"] ?? 0) - now, rule.pause(after: row?["failures"] ?? 0))
            guard left > 0, updatedAt <= now else {
                wait = left > 0 ? try Self.restart(left, name, database, now: now) : nil
                return
            }
            wait = Int((left + 999_999) / 1_000_000)
        }

        /// The clock was set back: the pause begins anew, so that it ends.
        private static func restart(
            _ left: Int64,
            _ name: String,
            _ database: GRDB.Database,
            now: Int64
        ) throws -> Int {
            let sql = "UPDATE login_attempts SET blocked_until = $1, updated_at = $2 WHERE name = $3"
            try database.execute(sql: sql, arguments: [now + left, now, name])
            return Int((left + 999_999) / 1_000_000)
        }

        func countFailure(_ database: GRDB.Database) throws {
            let failures = failures + 1
            let sql =
                "UPDATE login_attempts SET failures = $1, blocked_until = $2, updated_at = $3 WHERE name = $4"
            try database.execute(sql: sql, arguments: [failures, now + rule.pause(after: failures), now, name])
        }
    }
}
