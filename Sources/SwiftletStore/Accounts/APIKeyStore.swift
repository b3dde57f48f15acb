// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB
package import SwiftletCore

/// The API keys. Only their SHA-256 is stored: a key has 256 random bits, so that no slower hash would make it safer.
package struct APIKeyStore: Sendable {
    private static let columns = "id, user_id, label, hint, created_at, revoked_at, expires_at, last_used_at"
    private let database: Database
    private let now: @Sendable () -> Date

    package init(_ database: Database, now: @escaping @Sendable () -> Date = { Date() }) {
        self.database = database
        self.now = now
    }

    /// Makes a key; its text is returned once and never again.
    ///
    /// - Parameter limit: how many valid keys the user may have with it; nil for any number.
    /// - Throws: `TooManyKeys` over the limit.
    package func create(
        for user: UserID,
        label: String,
        expiresAt: Date? = nil,
        limit: Int? = nil
    ) async throws -> (text: String, key: APIKey) {
        let text = "instavm_sk_" + RandomText.make(bytes: 32)
        let hash = TextDigest.of(text)
        let moment = now().microseconds
        let key = try await database.writer.write { database in
            if let limit { try Self.makeRoom(for: user, limit: limit, in: database, at: moment) }
            return try Row.fetchOne(
                database,
                sql: """
                    INSERT INTO api_keys (user_id, hash, hint, label, created_at, expires_at)
                    VALUES ($1, $2, $3, $4, $5, $6)
                    RETURNING \(Self.columns)
                    """,
                arguments: [
                    user.rawValue, hash, String(text.prefix(15)), label, moment, expiresAt?.microseconds,
                ]
            ).map(APIKey.init)
        }
        guard let key else { throw StoreError("The database did not return the key that it stored") }
        return (text, key)
    }

    /// Throws when a user has as many valid keys as they may have. Holds the user's row to the end of the transaction, in
    /// PostgreSQL too, so that of many at once no more get through.
    private static func makeRoom(
        for user: UserID,
        limit: Int,
        in database: GRDB.Database,
        at moment: Int64
    ) throws {
        try database.execute(sql: "UPDATE users SET name = name WHERE id = $1", arguments: [user.rawValue])
        let sql = """
            SELECT COUNT(*) FROM api_keys
            WHERE user_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
            """
        let valid = try Int.fetchOne(database, sql: sql, arguments: [user.rawValue, moment]) ?? 0
        if valid >= limit { throw TooManyKeys(limit: limit) }
    }

    /// All keys in the order of their creation.
    package func list() async throws -> [APIKey] {
        try await database.writer.read { database in
            let sql = "SELECT \(Self.columns) FROM api_keys ORDER BY id"
            return try Row.fetchAll(database, sql: sql).map(APIKey.init)
        }
    }

    /// A user's keys that are not revoked, in the order of their creation.
    package func list(of user: UserID) async throws -> [APIKey] {
        try await database.writer.read { database in
            let sql = "SELECT \(Self.columns) FROM api_keys WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id"
            return try Row.fetchAll(database, sql: sql, arguments: [user.rawValue]).map(APIKey.init)
        }
    }

    /// Makes a key worthless from now on; false when there is none with this id, or it was revoked before.
    package func revoke(_ id: Int64) async throws -> Bool {
        let moment = now().microseconds
        return try await database.writer.write { database in
            let sql = "UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL"
            try database.execute(sql: sql, arguments: [moment, id])
            return database.changesCount == 1
        }
    }

    /// A user's key that is not revoked; nil for everything else.
    package func key(_ id: Int64, of user: UserID) async throws -> APIKey? {
        try await database.writer.read { database in
            let sql = "SELECT \(Self.columns) FROM api_keys WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL"
            return try Row.fetchOne(database, sql: sql, arguments: [id, user.rawValue]).map(APIKey.init)
        }
    }

    /// Changes a user's key; nil when it is not theirs, or revoked.
    ///
    /// - Parameter limit: how many valid keys the user may have when an expired one becomes valid again.
    /// - Throws: `TooManyKeys` over the limit.
    package func update(
        _ id: Int64,
        of user: UserID,
        label: String,
        expiresAt: Date?,
        limit: Int? = nil
    ) async throws -> APIKey? {
        let moment = now()
        return try await database.writer.write { database in
            if let limit, expiresAt.map({ $0 > moment }) ?? true {
                let sql = "SELECT COUNT(*) FROM api_keys WHERE id = $1 AND user_id = $2 AND expires_at <= $3"
                let arguments: StatementArguments = [id, user.rawValue, moment.microseconds]
                if try Int.fetchOne(database, sql: sql, arguments: arguments) == 1 {
                    try Self.makeRoom(for: user, limit: limit, in: database, at: moment.microseconds)
                }
            }
            let sql = """
                UPDATE api_keys SET label = $1, expires_at = $2
                WHERE id = $3 AND user_id = $4 AND revoked_at IS NULL RETURNING \(Self.columns)
                """
            let arguments: StatementArguments = [label, expiresAt?.microseconds, id, user.rawValue]
            return try Row.fetchOne(database, sql: sql, arguments: arguments).map(APIKey.init)
        }
    }

    /// Writes down when keys were last used; an earlier time than the one that is there changes nothing.
    package func recordUse(_ uses: [Int64: Date]) async throws {
        try await database.writer.write { database in
            for (id, moment) in uses.sorted(by: { $0.key < $1.key }) {
                try database.execute(
                    sql: """
                        UPDATE api_keys SET last_used_at = $1
                        WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)
                        """,
                    arguments: [moment.microseconds, id]
                )
            }
        }
    }

    /// Forgets keys that were revoked, or that expired, before a moment; at most a batch.
    ///
    /// The youngest key stays: its number must not become another's, of which the audit log would speak as of the same.
    /// - Returns: whether there may be more.
    package func purge(before moment: Date, limit: Int = 500) async throws -> Bool {
        try await database.writer.write { database in
            try database.execute(
                sql: """
                    DELETE FROM api_keys WHERE id IN (
                        SELECT id FROM api_keys WHERE (revoked_at < $1 OR expires_at < $2)
                            AND id < (SELECT MAX(id) FROM api_keys)
                        LIMIT $3)
                    """,
                arguments: [moment.microseconds, moment.microseconds, limit]
            )
            return database.changesCount == limit
        }
    }
}

extension APIKey {
    init(_ row: Row) {
        func moment(_ column: String) -> Date? { (row[column] as Int64?).map { Date(microseconds: $0) } }
        self.init(
            id: row["id"],
            user: UserID(rawValue: row["user_id"]),
            label: row["label"],
            hint: row["hint"],
            createdAt: Date(microseconds: row["created_at"]),
            revokedAt: moment("revoked_at"),
            expiresAt: moment("expires_at"),
            lastUsedAt: moment("last_used_at")
        )
    }
}
