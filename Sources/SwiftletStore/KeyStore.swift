// SPDX-License-Identifier: Apache-2.0

import Crypto
package import Foundation
import GRDB

/// An API key without its text, which nobody can read back.
package struct APIKey: Equatable, Sendable {
    package let id: Int64
    package let user: UserID
    package let label: String
    /// The first characters of the key's text.
    package let hint: String
    package let createdAt: Date
    package let revokedAt: Date?

    init(_ row: Row) {
        id = row["id"]
        user = UserID(rawValue: row["user_id"])
        label = row["label"]
        hint = row["hint"]
        createdAt = Date(microseconds: row["created_at"])
        revokedAt = (row["revoked_at"] as Int64?).map { Date(microseconds: $0) }
    }
}

/// The API keys. Only their SHA-256 is stored: a key has 256 random bits, so that no slower hash would make it safer.
package struct KeyStore: Sendable {
    private static let columns = "id, user_id, label, hint, created_at, revoked_at"
    private let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    /// Makes a key; its text is returned once and never again.
    package func create(for user: UserID, label: String) async throws -> (text: String, key: APIKey) {
        var generator = SystemRandomNumberGenerator()
        let random = Data((0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) })
        let encoded = random.base64EncodedString()
            .replacingOccurrences(of: "+", with: "-")
            .replacingOccurrences(of: "/", with: "_")
            .replacingOccurrences(of: "=", with: "")
        let text = "instavm_sk_" + encoded
        let hash = Self.hash(text)
        let key = try await database.writer.write { database in
            try Row.fetchOne(
                database,
                sql: """
                    INSERT INTO api_keys (user_id, hash, hint, label, created_at) VALUES ($1, $2, $3, $4, $5)
                    RETURNING \(Self.columns)
                    """,
                arguments: [user.rawValue, hash, String(text.prefix(15)), label, Date().microseconds]
            ).map(APIKey.init)
        }
        guard let key else { throw StoreError("The database did not return the key that it stored") }
        return (text, key)
    }

    /// The user whose key this is; nil for an unknown or revoked one.
    package func authenticate(_ text: String) async throws -> UserID? {
        let hash = Self.hash(text)
        return try await database.writer.read { database in
            let sql = "SELECT user_id FROM api_keys WHERE hash = $1 AND revoked_at IS NULL"
            return try Int64.fetchOne(database, sql: sql, arguments: [hash]).map(UserID.init)
        }
    }

    /// All keys in the order of their creation, or a user's.
    package func list(of user: UserID? = nil) async throws -> [APIKey] {
        try await database.writer.read { database in
            let sql = "SELECT \(Self.columns) FROM api_keys ORDER BY id"
            return try Row.fetchAll(database, sql: sql).map(APIKey.init).filter { user == nil || $0.user == user }
        }
    }

    /// Makes a key worthless from now on; false when there is none with this id, or it was revoked before.
    package func revoke(_ id: Int64) async throws -> Bool {
        try await database.writer.write { database in
            let sql = "UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL"
            try database.execute(sql: sql, arguments: [Date().microseconds, id])
            return database.changesCount == 1
        }
    }

    private static func hash(_ text: String) -> String {
        SHA256.hash(data: Data(text.utf8)).map { String(format: "%02x", $0) }.joined()
    }
}
