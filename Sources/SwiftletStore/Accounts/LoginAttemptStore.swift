// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB
package import SwiftletCore

/// An attempt to log in that has begun and not ended.
package struct LoginAttempt: Sendable {
    fileprivate let account: String
    fileprivate let pair: String
    /// The counters that it is counted in, in the order in which they are locked.
    fileprivate let counters: [LoginCounter]
    /// Whether the account was logged in to from there before.
    fileprivate let isKnown: Bool
}

/// Attempts to log in, counted in the database for where they come from and for their account, and slowed down more and more.
///
/// An attempt counts as failed from its beginning, so that concurrent attempts cannot evade the count; success withdraws it.
///
/// Any client can make an account pause. So an account has a separate counter for each client address that it was logged in to from:
/// attempts from elsewhere do not raise it, and the owner can log in from there.
package struct LoginAttemptStore: Sendable {
    /// The result of beginning an attempt.
    package enum Beginning: Sendable {
        case attempt(LoginAttempt)
        /// It counts as none; another may be made after so many seconds, and `free` are free of pauses.
        case refused(seconds: Int, free: Int)
    }

    /// Microseconds after which failures are forgotten.
    fileprivate static let memory: Int64 = 3_600_000_000
    /// Known client addresses of an account.
    private static let maximumKnown = 20
    /// Microseconds without a log-in after which a known client address is deleted.
    private static let knownLife: Int64 = 90 * 86_400_000_000

    private let database: Database
    private let now: @Sendable () -> Date

    package init(_ database: Database, now: @escaping @Sendable () -> Date = { Date() }) {
        self.database = database
        self.now = now
    }

    /// Begins an attempt.
    package func begin(email: String, from clientAddress: ClientAddress) async throws -> Beginning {
        // By digests: a user may have typed a password as the address.
        let account = TextDigest.of(email.lowercased())
        let pair = TextDigest.of("\(account) \(clientAddress.name)")
        return try await database.writer.write { [now] database in
            let sql = "SELECT COUNT(*) FROM known_logins WHERE pair = $1"
            let isKnown = try Int.fetchOne(database, sql: sql, arguments: [pair]) ?? 0 > 0
            let own: LoginCounter = isKnown ? .pair(pair) : .account(account)
            let counters = LoginCounter.origins(of: clientAddress) + [own]
            var states: [LoginCounter.State] = []
            // A refused attempt is not counted for its account.
            for counter in counters {
                let state = try counter.state(database, now: now().microseconds)
                if let wait = state.wait { return .refused(seconds: wait, free: counter.free) }
                states.append(state)
            }
            for state in states { try state.countFailure(database) }
            return .attempt(LoginAttempt(account: account, pair: pair, counters: counters, isKnown: isKnown))
        }
    }

    /// Withdraws the failure of an attempt, and stores the client address as known for the account.
    ///
    /// All failures of the account are deleted, or those of the pair if that was known. Other failures of the client address and the
    /// network are kept: else the owner of one account could try others without limit.
    package func succeeded(_ attempt: LoginAttempt) async throws {
        let moment = now().microseconds
        try await database.writer.write { database in
            for counter in attempt.counters {
                if counter.isOrigin { try counter.withdraw(database) } else { try counter.forget(database) }
            }
            try Self.remember(attempt, database, at: moment)
        }
    }

    /// Withdraws an attempt whose password was not checked.
    package func withdraw(_ attempt: LoginAttempt) async throws {
        try await database.writer.write { database in
            for counter in attempt.counters { try counter.withdraw(database) }
        }
    }

    /// Deletes expired failures and known client addresses.
    package func purge() async throws {
        let moment = now().microseconds
        try await database.writer.write { database in
            try database.execute(
                sql: "DELETE FROM login_attempts WHERE updated_at < $1 AND blocked_until < $1",
                arguments: [moment - Self.memory]
            )
            try database.execute(
                sql: "DELETE FROM known_logins WHERE used_at < $1",
                arguments: [moment - Self.knownLife]
            )
        }
    }

    private static func remember(_ attempt: LoginAttempt, _ database: GRDB.Database, at moment: Int64) throws {
        try database.execute(
            sql: """
                INSERT INTO known_logins (pair, account, used_at) VALUES ($1, $2, $3)
                ON CONFLICT (pair) DO UPDATE SET used_at = excluded.used_at
                """,
            arguments: [attempt.pair, attempt.account, moment]
        )
        guard !attempt.isKnown else { return }
        try database.execute(
            sql: """
                DELETE FROM known_logins WHERE account = $1 AND pair NOT IN (
                    SELECT pair FROM known_logins WHERE account = $1 ORDER BY used_at DESC, pair LIMIT \(maximumKnown)
                )
                """,
            arguments: [attempt.account]
        )
    }
}

/// What a failure is counted for.
enum LoginCounter: Equatable, Sendable {
    /// Many people may share an address.
    case clientAddress(String)
    case network(String)
    /// An account, for all client addresses that are not known for it.
    case account(String)
    /// An account and a client address that is known for it.
    case pair(String)

    static func origins(of clientAddress: ClientAddress) -> [LoginCounter] {
        [.clientAddress(String(clientAddress.name.prefix(64)))]
            + (clientAddress.network.map { [.network(String($0.prefix(64)))] } ?? [])
    }

    fileprivate var name: String {
        switch self {
        case .clientAddress(let name): "address:" + name
        case .network(let name): "network:" + name
        case .account(let digest): "account:" + digest
        case .pair(let digest): "pair:" + digest
        }
    }

    var isOrigin: Bool {
        switch self {
        case .clientAddress, .network: true
        case .account, .pair: false
        }
    }

    /// How many failures are free of a pause.
    var free: Int {
        switch self {
        case .clientAddress: 20
        case .network: 100
        case .account, .pair: 5
        }
    }

    /// The longest pause, in seconds.
    private var longest: Int64 { isOrigin ? 900 : 300 }

    /// Microseconds until the next attempt after so many failures.
    private func pause(after failures: Int) -> Int64 {
        let exponent = failures - free
        return exponent <= 0 ? 0 : min(longest, Int64(1) << min(exponent - 1, 30)) * 1_000_000
    }

    fileprivate func withdraw(_ database: GRDB.Database) throws {
        let sql = """
            UPDATE login_attempts SET failures = failures - 1, blocked_until = 0 WHERE name = $1 AND failures > 0
            """
        try database.execute(sql: sql, arguments: [name])
    }

    fileprivate func forget(_ database: GRDB.Database) throws {
        try database.execute(sql: "DELETE FROM login_attempts WHERE name = $1", arguments: [name])
    }

    /// Reads the row, and locks it to the end of the transaction, in PostgreSQL too.
    fileprivate func state(_ database: GRDB.Database, now: Int64) throws -> State {
        let row = try Row.fetchOne(
            database,
            sql: """
                INSERT INTO login_attempts (name, failures, blocked_until, updated_at) VALUES ($1, 0, 0, $2)
                ON CONFLICT (name) DO UPDATE SET failures = login_attempts.failures
                RETURNING failures, blocked_until, updated_at
                """,
            arguments: [name, now]
        )
        let updatedAt: Int64 = row?["updated_at"] ?? now
        let stored: Int = row?["failures"] ?? 0
        let failures = now - updatedAt > LoginAttemptStore.memory ? 0 : stored
        // Further away than the pause was long was written before the clock was set back.
        let remaining = min((row?["blocked_until"] ?? 0) - now, pause(after: stored))
        if remaining > 0, updatedAt > now { try restart(remaining, database, now: now) }
        let wait = remaining > 0 ? Int((remaining + 999_999) / 1_000_000) : nil
        return State(counter: self, now: now, failures: failures, wait: wait)
    }

    /// The clock was set back: the pause begins anew, so that it ends.
    private func restart(_ pause: Int64, _ database: GRDB.Database, now: Int64) throws {
        let sql = "UPDATE login_attempts SET blocked_until = $1, updated_at = $2 WHERE name = $3"
        try database.execute(sql: sql, arguments: [now + pause, now, name])
    }

    /// A counter's row, as read in a transaction.
    fileprivate struct State {
        let counter: LoginCounter
        let now: Int64
        let failures: Int
        /// Seconds until the next attempt; nil when it may be made.
        let wait: Int?

        func countFailure(_ database: GRDB.Database) throws {
            let failures = failures + 1
            let sql =
                "UPDATE login_attempts SET failures = $1, blocked_until = $2, updated_at = $3 WHERE name = $4"
            let until = now + counter.pause(after: failures)
            try database.execute(sql: sql, arguments: [failures, until, now, counter.name])
        }
    }
}
