// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletStore

struct UserCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "user",
        abstract: "Adds and lists users. A user sees only their own sessions.",
        subcommands: [Add.self, List.self]
    )

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Adds a user and prints a first key of theirs.")

        @OptionGroup var common: CommonOptions

        @Argument(help: "The user's e-mail address.")
        var email: String

        func run() async throws {
            let database = try await common.openDatabase()
            let user = try await UserStore(database).create(email: email)
            let (text, _) = try await KeyStore(database).create(for: user.id, label: "first key")
            print("User: \(user.email)\nKey:  \(text)\nThe key is shown once.")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the users.")

        @OptionGroup var common: CommonOptions

        func run() async throws {
            for user in try await UserStore(try await common.openDatabase()).list() {
                print("\(user.id)  \(user.email)  \(user.createdAt.ISO8601Format())")
            }
        }
    }
}

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

        func run() async throws {
            let database = try await common.openDatabase()
            guard let user = try await UserStore(database).user(email: email) else {
                throw ValidationError("There is no user \(email); add one with: swiftlet user add \(email)")
            }
            let (text, key) = try await KeyStore(database).create(for: user.id, label: label)
            print("Key \(key.id): \(text)")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the keys, without their texts.")

        @OptionGroup var common: CommonOptions

        func run() async throws {
            let database = try await common.openDatabase()
            let users = try await UserStore(database).list()
            for key in try await KeyStore(database).list() {
                let user = users.first { $0.id == key.user }?.email ?? "?"
                let state = key.revokedAt.map { "revoked \($0.ISO8601Format())" } ?? "valid"
                print("\(key.id)  \(key.hint)...  \(user)  \(key.createdAt.ISO8601Format())  \(state)  \(key.label)")
            }
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Makes a key worthless, at once and for good.")

        @OptionGroup var common: CommonOptions

        @Argument(help: "The key's number, as `key list` shows it.")
        var id: Int64

        func run() async throws {
            guard try await KeyStore(try await common.openDatabase()).revoke(id) else {
                throw ValidationError("There is no valid key \(id)")
            }
        }
    }
}

extension CommonOptions {
    /// The server's database; it may be running.
    fileprivate func openDatabase() async throws -> Database {
        try Database.open(path: try await settings().data.database)
    }
}
