// SPDX-License-Identifier: Apache-2.0

import GRDB
package import SwiftletCore

/// Reads accounts, by id and by API key.
package struct AccountStore: Sendable {
    private let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    /// The account of a user; nil when there is none.
    package func account(_ id: UserID) async throws -> Account? {
        try await database.writer.read { database in
            let sql = "SELECT \(Account.columns) FROM users WHERE users.id = $1"
            return try Row.fetchOne(database, sql: sql, arguments: [id.rawValue]).map(Account.init)
        }
    }

    /// The owner of a key that is not revoked; nil when there is none.
    ///
    /// - Parameter digest: the key's digest, as `TextDigest.of(_:)` makes it.
    package func owner(ofKeyDigest digest: String) async throws -> APIKeyOwner? {
        try await database.writer.read { database in
            let sql = """
                SELECT \(Account.columns), api_keys.id AS key_id, expires_at
                FROM api_keys JOIN users ON users.id = user_id WHERE hash = $1 AND revoked_at IS NULL
                """
            return try Row.fetchOne(database, sql: sql, arguments: [digest]).map {
                APIKeyOwner(account: Account($0), keyID: $0["key_id"], expiresAt: $0["expires_at"])
            }
        }
    }
}

extension Account {
    static let columns = "users.id, email, name, plan, token_generation, disabled_at"

    init(_ row: Row) {
        self.init(
            id: UserID(rawValue: row["id"]),
            email: row["email"],
            name: row["name"],
            planName: row["plan"],
            tokenGeneration: row["token_generation"],
            isDisabled: (row["disabled_at"] as Int64?) != nil
        )
    }
}
