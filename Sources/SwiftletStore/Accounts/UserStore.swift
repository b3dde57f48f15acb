// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRDB
package import SwiftletCore

/// The users.
package struct UserStore: Sendable {
    private let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    /// Adds a user.
    ///
    /// - Throws: `StoreError` when the address is none, or taken.
    package func create(
        email: String,
        name: String = "",
        plan: String = Plan.unlimited.name
    ) async throws -> User {
        let parts = email.split(separator: "@", omittingEmptySubsequences: false)
        let isPlain = email.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value != 0x7f }
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }), email.utf8.count <= Limits.emailBytes, isPlain else {
            throw StoreError("'\(email)' is not an e-mail address")
        }
        let user = try await database.writer.write { database in
            try Row.fetchOne(
                database,
                sql: """
                    INSERT INTO users (email, created_at, name, plan) VALUES ($1, $2, $3, $4)
                    ON CONFLICT (email) DO NOTHING RETURNING \(User.columns)
                    """,
                arguments: [email.lowercased(), Date().microseconds, name, plan]
            ).map(User.init)
        }
        guard let user else { throw StoreError("There is a user \(email) already") }
        return user
    }

    package func user(email: String) async throws -> User? {
        try await database.writer.read { database in
            let sql = "SELECT \(User.columns) FROM users WHERE email = $1"
            return try Row.fetchOne(database, sql: sql, arguments: [email.lowercased()]).map(User.init)
        }
    }

    /// All users in the order of their creation.
    package func list() async throws -> [User] {
        try await database.writer.read { database in
            try Row.fetchAll(database, sql: "SELECT \(User.columns) FROM users ORDER BY id").map(User.init)
        }
    }

    /// Gives a user another plan.
    package func setPlan(_ plan: String, of user: UserID) async throws {
        try await update("UPDATE users SET plan = $1 WHERE id = $2", [plan, user.rawValue])
    }

    /// Disables or enables a user. Both invalidate the user's tokens.
    package func setDisabled(_ disabled: Bool, _ user: UserID) async throws {
        try await update(
            "UPDATE users SET disabled_at = $1, token_generation = token_generation + 1 WHERE id = $2",
            [disabled ? Date().microseconds : nil, user.rawValue]
        )
    }

    /// Sets a password's hash. All tokens that were given for the one before are worthless from now on.
    package func setPassword(hash: String, of user: UserID) async throws {
        try await update(
            "UPDATE users SET password_hash = $1, token_generation = token_generation + 1 WHERE id = $2",
            [hash, user.rawValue]
        )
    }

    /// The account of an address with the text of its password's hash; nil for an unknown address.
    package func login(email: String) async throws -> (account: Account, passwordHash: String?)? {
        try await database.writer.read { database in
            let sql = "SELECT \(Account.columns), password_hash FROM users WHERE email = $1"
            return try Row.fetchOne(database, sql: sql, arguments: [email.lowercased()]).map {
                (Account($0), $0["password_hash"])
            }
        }
    }

    private func update(_ sql: String, _ arguments: StatementArguments) async throws {
        try await database.writer.write { database in
            try database.execute(sql: sql, arguments: arguments)
            guard database.changesCount == 1 else { throw StoreError("There is no such user") }
        }
    }
}

extension User {
    static let columns = "id, email, created_at, name, plan, disabled_at"

    init(_ row: Row) {
        self.init(
            id: UserID(rawValue: row["id"]),
            email: row["email"],
            createdAt: Date(microseconds: row["created_at"]),
            name: row["name"],
            plan: row["plan"],
            disabledAt: (row["disabled_at"] as Int64?).map { Date(microseconds: $0) }
        )
    }
}
