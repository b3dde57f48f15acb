// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRDB
import Synchronization

/// What a request needs to know of its user.
package struct Account: Equatable, Sendable {
    package let id: UserID
    package let email: String
    package let name: String
    package let planName: String
    /// Tokens of another generation are worthless.
    package let tokenGeneration: Int64
    package let isDisabled: Bool

    static let columns = "users.id, email, name, plan, token_generation, disabled_at"

    init(_ row: Row) {
        id = UserID(rawValue: row["id"])
        email = row["email"]
        name = row["name"]
        planName = row["plan"]
        tokenGeneration = row["token_generation"]
        isDisabled = (row["disabled_at"] as Int64?) != nil
    }
}

/// A key that opened a door, and whose.
package struct KeyHolder: Equatable, Sendable {
    package let account: Account
    package let keyID: Int64
    let expiresAt: Int64?
}

/// Whose key it is, and what plan they have: read from the database at most once a second for each.
///
/// So a warm request costs no query, and a revoked key, a disabled user and another plan count within a second, whichever process
/// wrote them.
package final class AccountDirectory: Sendable {
    /// The plans that the server knows.
    package let plans: PlanCatalog
    private let database: Database
    private let cache: Mutex<AccountCache>

    /// - Parameter life: how long what was read is taken as true.
    package init(_ database: Database, plans: PlanCatalog = .standard, life: Duration = .seconds(1)) {
        self.database = database
        self.plans = plans
        cache = Mutex(AccountCache(life: life))
    }

    /// The holder of a key; nil when it is unknown, revoked or expired.
    package func holder(ofKey text: String) async throws -> KeyHolder? {
        let hash = TextDigest.of(text)
        let known = cache.withLock { $0.holder(ofKey: hash, at: .now) }
        let moment = Date().microseconds
        guard let holder = if let known { known } else { try await read(hash) } else { return nil }
        guard holder.expiresAt.map({ moment < $0 }) ?? true else { return nil }
        return holder
    }

    /// The account of a user; nil when there is none.
    package func account(_ id: UserID) async throws -> Account? {
        let (known, reading) = cache.withLock { ($0.account(id, at: .now), $0.reading(at: .now)) }
        if let known { return known }
        let account = try await database.writer.read { database in
            let sql = "SELECT \(Account.columns) FROM users WHERE users.id = $1"
            return try Row.fetchOne(database, sql: sql, arguments: [id.rawValue]).map(Account.init)
        }
        if let account { cache.withLock { $0.keep(account, from: reading) } }
        return account
    }

    /// Makes the next question go to the database: for who has just changed something.
    package func forget() {
        cache.withLock { $0.forget() }
    }

    /// A user's plan.
    ///
    /// - Throws: `StoreError` when the user is none, or has a plan that the server does not know.
    package func plan(of id: UserID) async throws -> Plan {
        guard let account = try await account(id) else { throw StoreError("There is no user \(id)") }
        return try plans.plan(named: account.planName)
    }

    private func read(_ hash: String) async throws -> KeyHolder? {
        let reading = cache.withLock { $0.reading(at: .now) }
        let holder = try await database.writer.read { database in
            let sql = """
                SELECT \(Account.columns), api_keys.id AS key_id, expires_at
                FROM api_keys JOIN users ON users.id = user_id WHERE hash = $1 AND revoked_at IS NULL
                """
            return try Row.fetchOne(database, sql: sql, arguments: [hash]).map {
                KeyHolder(account: Account($0), keyID: $0["key_id"], expiresAt: $0["expires_at"])
            }
        }
        cache.withLock { $0.keep(holder, ofKey: hash, from: reading) }
        return holder
    }
}
