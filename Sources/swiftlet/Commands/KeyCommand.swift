// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletCore
import SwiftletStore

struct KeyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key",
        abstract: "Creates, lists and revokes API keys.",
        subcommands: [Create.self, List.self, Revoke.self]
    )

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Creates a key and prints it, once.")

        @OptionGroup var common: CommonOptions

        @Argument(help: "The e-mail address of the key's user.")
        var email: String

        @Option(help: "What the key is for.")
        var label = ""

        @Option(help: "Seconds after which the key opens nothing any more. Default: never")
        var expiresIn: Int?

        func validate() throws {
            if let expiresIn, !Limits.keyLifetimeSeconds.contains(expiresIn) {
                throw ValidationError("--expires-in must be a number of seconds, from 1 to a hundred years")
            }
        }

        func run() async throws {
            let database = try await common.openDatabase()
            let user = try await UserStore(database).existing(email)
            let expiresAt = expiresIn.map { Date().addingTimeInterval(Double($0)) }
            let (text, key) = try await APIKeyStore(database).create(for: user.id, label: label, expiresAt: expiresAt)
            try await AuditStore(database).recordOperator(.keyCreated, on: user.id, resource: String(key.id))
            print("Key \(key.id): \(text)")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the keys, without their texts.")

        @OptionGroup var common: CommonOptions

        func run() async throws {
            let database = try await common.openDatabase()
            let users = try await UserStore(database).list()
            for key in try await APIKeyStore(database).list() {
                let user = users.first { $0.id == key.user }?.email ?? "?"
                let state = Self.state(of: key)
                print("\(key.id)  \(key.hint)...  \(user)  \(key.createdAt.ISO8601Format())  \(state)  \(key.label)")
            }
        }

        private static func state(of key: APIKey) -> String {
            if let moment = key.revokedAt { return "revoked \(moment.ISO8601Format())" }
            guard let moment = key.expiresAt else { return "valid" }
            return (moment > Date() ? "expires " : "expired ") + moment.ISO8601Format()
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes a key worthless, for good; a running server knows within a second."
        )

        @OptionGroup var common: CommonOptions

        @Argument(help: "The key's number, as `key list` shows it.")
        var id: Int64

        func run() async throws {
            let database = try await common.openDatabase()
            let keys = APIKeyStore(database)
            guard let key = try await keys.list().first(where: { $0.id == id }), try await keys.revoke(id) else {
                throw ValidationError("There is no valid key \(id)")
            }
            try await AuditStore(database).recordOperator(.keyRevoked, on: key.user, resource: String(id))
        }
    }
}
