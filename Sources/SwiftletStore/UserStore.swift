// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB

/// A person or program that owns sessions.
package struct User: Equatable, Sendable {
    package let id: UserID
    package let email: String
    package let createdAt: Date

    init(_ row: Row) {
        id = UserID(rawValue: row["id"])
        email = row["email"]
        createdAt = Date(microseconds: row["created_at"])
    }
}

/// The users.
package struct UserStore: Sendable {
    private let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    /// Adds a user.
    ///
    /// - Throws: `StoreError` when the address is none, or taken.
    package func create(email: String) async throws -> User {
        let parts = email.split(separator: "@", omittingEmptySubsequences: false)
        let isPlain = email.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value != 0x7f }
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }), email.utf8.count <= 254, isPlain else {
            throw StoreError("'\(email)' is not an e-mail address")
        }
        let user = try await database.writer.write { database in
            try Row.fetchOne(
                database,
                sql: """
                    INSERT INTO users (email, created_at) VALUES ($1, $2)
                    ON CONFLICT (email) DO NOTHING RETURNING id, email, created_at
                    """,
                arguments: [email.lowercased(), Date().microseconds]
            ).map(User.init)
        }
        guard let user else { throw StoreError("There is a user \(email) already") }
        return user
    }

    package func user(email: String) async throws -> User? {
        try await database.writer.read { database in
            let sql = "SELECT id, email, created_at FROM users WHERE email = $1"
            return try Row.fetchOne(database, sql: sql, arguments: [email.lowercased()]).map(User.init)
        }
    }

    /// All users in the order of their creation.
    package func list() async throws -> [User] {
        try await database.writer.read { database in
            try Row.fetchAll(database, sql: "SELECT id, email, created_at FROM users ORDER BY id").map(User.init)
        }
    }
}
