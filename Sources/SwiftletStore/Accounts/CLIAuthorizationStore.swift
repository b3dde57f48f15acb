// SPDX-License-Identifier: Apache-2.0

import Crypto
package import Foundation
import GRDB
package import SwiftletCore

/// A device that waits until its user has logged in for it.
package struct CLIAuthorization: Equatable, Sendable {
    package let id: String
    /// A value of the device's own, which is sent back to it.
    package let state: String
    /// The digest of a secret that only the device has (PKCE, S256).
    package let challenge: String
    package let redirectURI: String
    /// The name that the device gives itself.
    package let device: String

    /// A new CLI authorization, with an id that cannot be guessed.
    package init(state: String, challenge: String, redirectURI: String, device: String) {
        id = RandomText.make(bytes: 24)
        self.state = state
        self.challenge = challenge
        self.redirectURI = redirectURI
        self.device = device
    }

    init(_ row: Row) {
        id = row["id"]
        state = row["state"]
        challenge = row["challenge"]
        redirectURI = row["redirect_uri"]
        device = row["device"]
    }
}

/// The devices that wait. Each is valid for five minutes, one log-in and one exchange.
package struct CLIAuthorizationStore: Sendable {
    /// Seconds that a device may wait.
    package static let life = 300.0
    /// How many may wait at once, for one client address, one network of many, and all together.
    package static let addressMaximum = 10
    static let networkMaximum = 100
    static let maximum = 10_000

    /// The result of inserting a CLI authorization.
    package enum Admission: Equatable, Sendable {
        case waits
        /// `limit` are waiting; after `retryAfter` seconds at the latest, one of them has expired.
        case tooMany(limit: Int, retryAfter: Double)
    }

    private let database: Database
    private let now: @Sendable () -> Date

    package init(_ database: Database, now: @escaping @Sendable () -> Date = { Date() }) {
        self.database = database
        self.now = now
    }

    /// Stores a CLI authorization, unless too many are waiting.
    package func insert(_ authorization: CLIAuthorization, from clientAddress: ClientAddress) async throws -> Admission
    {
        let moment = now()
        return try await database.writer.write { database in
            try Self.purge(database, at: moment)
            let refusal =
                try Self.refusal(Self.addressMaximum, "household", clientAddress.name, database, at: moment)
                ?? Self.refusal(Self.networkMaximum, "network", clientAddress.network, database, at: moment)
            if let refusal { return refusal }
            let count = try Int.fetchOne(database, sql: "SELECT COUNT(*) FROM cli_pairings") ?? 0
            guard count < Self.maximum else { return .tooMany(limit: Self.maximum, retryAfter: Self.life / 5) }
            try database.execute(
                sql: """
                    INSERT INTO cli_pairings (id, state, challenge, redirect_uri, device, expires_at, household, network)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                    """,
                arguments: [
                    authorization.id, authorization.state, authorization.challenge, authorization.redirectURI,
                    authorization.device,
                    moment.addingTimeInterval(Self.life).microseconds, clientAddress.name, clientAddress.network,
                ]
            )
            return .waits
        }
    }

    /// A refusal when `limit` rows with this value in the column are waiting; else nil.
    private static func refusal(
        _ limit: Int,
        _ column: String,
        _ value: String?,
        _ database: GRDB.Database,
        at moment: Date
    ) throws -> Admission? {
        guard let value else { return nil }
        let sql = "SELECT COUNT(*) AS number, MIN(expires_at) AS first FROM cli_pairings WHERE \(column) = $1"
        guard let row = try Row.fetchOne(database, sql: sql, arguments: [value]), row["number"] >= limit else {
            return nil
        }
        let first = Date(microseconds: row["first"])
        return .tooMany(limit: limit, retryAfter: max(1, first.timeIntervalSince(moment)))
    }

    /// A CLI authorization that waits for its log-in; nil when there is none, or it has expired.
    package func waiting(_ id: String) async throws -> CLIAuthorization? {
        let moment = now().microseconds
        return try await database.writer.read { database in
            let sql = "SELECT * FROM cli_pairings WHERE id = $1 AND code_hash IS NULL AND expires_at > $2"
            return try Row.fetchOne(database, sql: sql, arguments: [id, moment]).map(CLIAuthorization.init)
        }
    }

    /// Records the user who logged in for a device.
    ///
    /// - Parameter account: as it was when the password was checked.
    /// - Returns: the code for its exchange; nil when it is confirmed already, or has expired.
    package func confirm(_ id: String, by account: Account) async throws -> String? {
        let code = RandomText.make(bytes: 32)
        let moment = now().microseconds
        let isConfirmed = try await database.writer.write { database in
            try database.execute(
                sql: """
                    UPDATE cli_pairings SET user_id = $1, code_hash = $2, token_generation = $3
                    WHERE id = $4 AND code_hash IS NULL AND expires_at > $5
                    """,
                arguments: [account.id.rawValue, TextDigest.of(code), account.tokenGeneration, id, moment]
            )
            return database.changesCount == 1
        }
        return isConfirmed ? code : nil
    }

    /// Ends a CLI authorization with its code.
    ///
    /// - Returns: the user who logged in, and the authorization; nil when the code is wrong, used or expired. It is nil too when the
    ///   verifier does not match the challenge, or the user was disabled or has another password since the log-in; the code cannot be
    ///   used again then.
    package func exchange(
        _ id: String,
        code: String,
        verifier: String
    ) async throws -> (account: Account, authorization: CLIAuthorization)? {
        let moment = now().microseconds
        let ended: (account: Account, authorization: CLIAuthorization)? = try await database.writer.write { database in
            let sql = "DELETE FROM cli_pairings WHERE id = $1 AND code_hash = $2 AND expires_at > $3 RETURNING *"
            guard let row = try Row.fetchOne(database, sql: sql, arguments: [id, TextDigest.of(code), moment]) else {
                return nil
            }
            let user: Int64 = row["user_id"]
            let generation: Int64? = row["token_generation"]
            let users = "SELECT \(Account.columns) FROM users WHERE users.id = $1"
            let account = try Row.fetchOne(database, sql: users, arguments: [user]).map(Account.init)
            guard let account, !account.isDisabled, account.tokenGeneration == generation else { return nil }
            return (account, CLIAuthorization(row))
        }
        guard let ended else { return nil }
        guard Data(SHA256.hash(data: Data(verifier.utf8))).base64URL == ended.authorization.challenge else {
            return nil
        }
        return ended
    }

    /// Deletes expired CLI authorizations.
    package func purge() async throws {
        let moment = now()
        try await database.writer.write { database in
            try Self.purge(database, at: moment)
        }
    }

    private static func purge(_ database: GRDB.Database, at moment: Date) throws {
        // Later than any can expire was written before the clock was set back.
        try database.execute(
            sql: "DELETE FROM cli_pairings WHERE expires_at <= $1 OR expires_at > $2",
            arguments: [moment.microseconds, moment.addingTimeInterval(life).microseconds]
        )
    }
}
