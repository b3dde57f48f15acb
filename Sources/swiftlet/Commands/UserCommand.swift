// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletAccounts
import SwiftletCore
import SwiftletStore

struct UserCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "user",
        abstract: "Adds, lists and changes users. A user sees only their own sessions.",
        discussion: "A running server takes a change within a second or two.",
        subcommands: [Add.self, List.self, SetPlan.self, Disable.self, Enable.self, Password.self]
    )

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Adds a user and prints a first key of theirs.")

        @OptionGroup var common: CommonOptions

        @Argument(help: "The user's e-mail address.")
        var email: String

        @Option(help: "What the user is called.")
        var name = ""

        @Option(help: "The user's plan. Default: the setting defaultPlan, or unlimited")
        var plan: String?

        @Flag(help: "Read a password from standard input, for POST /token and instavm login.")
        var passwordStdin = false

        func run() async throws {
            let settings = try await common.settings()
            let catalog = try settings.planCatalog()
            let plan = try plan.map { try catalog.plan(named: $0) } ?? catalog.defaultPlan
            let password = passwordStdin ? try PasswordInput.hashFromInput() : nil
            let database = try Database.open(path: settings.data.database)
            let user = try await UserStore(database).create(email: email, name: name, plan: plan.name)
            if let password { try await UserStore(database).setPassword(hash: password.text, of: user.id) }
            let (text, key) = try await APIKeyStore(database).create(for: user.id, label: "first key")
            let audit = AuditStore(database)
            try await audit.recordOperator(.userCreated, on: user.id, details: ["plan": .text(plan.name)])
            try await audit.recordOperator(.keyCreated, on: user.id, resource: String(key.id))
            print("User: \(user.email)\nKey:  \(text)\nThe key is shown once.")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the users and their plans.")

        @OptionGroup var common: CommonOptions

        func run() async throws {
            for user in try await UserStore(try await common.openDatabase()).list() {
                let state = user.disabledAt.map { "  disabled \($0.ISO8601Format())" } ?? ""
                print("\(user.id)  \(user.email)  \(user.createdAt.ISO8601Format())  \(user.plan)\(state)")
            }
        }
    }

    struct SetPlan: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "plan", abstract: "Gives a user another plan.")

        @OptionGroup var common: CommonOptions

        @Argument(help: "The user's e-mail address.")
        var email: String

        @Argument(help: "free, pro, unlimited, or one of the setting plansFile.")
        var plan: String

        func run() async throws {
            let settings = try await common.settings()
            let plan = try settings.planCatalog().plan(named: plan)
            let database = try Database.open(path: settings.data.database)
            let users = UserStore(database)
            let user = try await users.existing(email)
            try await users.setPlan(plan.name, of: user.id)
            let change: [String: AuditEvent.Detail] = ["from": .text(user.plan), "to": .text(plan.name)]
            try await AuditStore(database).recordOperator(.userPlanChanged, on: user.id, details: change)
        }
    }

    struct Disable: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract:
                "Shuts a user out: their keys and tokens open nothing. Their VMs live to the end of their lifetime."
        )

        @OptionGroup var common: CommonOptions

        @Argument(help: "The user's e-mail address.")
        var email: String

        func run() async throws {
            let (database, users, user) = try await common.existingUser(email)
            try await users.setDisabled(true, user.id)
            try await AuditStore(database).recordOperator(.userDisabled, on: user.id)
        }
    }

    struct Enable: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lets a user in again, with the keys that they had; tokens must be had anew."
        )

        @OptionGroup var common: CommonOptions

        @Argument(help: "The user's e-mail address.")
        var email: String

        func run() async throws {
            let (database, users, user) = try await common.existingUser(email)
            try await users.setDisabled(false, user.id)
            try await AuditStore(database).recordOperator(.userEnabled, on: user.id)
        }
    }

    struct Password: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract:
                "Sets a user's password, read from the terminal or from standard input. Their tokens become worthless."
        )

        @OptionGroup var common: CommonOptions

        @Argument(help: "The user's e-mail address.")
        var email: String

        func run() async throws {
            let (database, users, user) = try await common.existingUser(email)
            try await users.setPassword(hash: try PasswordInput.hash().text, of: user.id)
            try await AuditStore(database).recordOperator(.userPasswordChanged, on: user.id)
        }
    }
}

extension UserStore {
    /// - Throws: `ValidationError` when there is no user with this address.
    func existing(_ email: String) async throws -> User {
        guard let user = try await user(email: email) else {
            throw ValidationError("There is no user \(email); add one with: swiftlet user add \(email)")
        }
        return user
    }
}

extension CommonOptions {
    /// A user and where they are kept.
    ///
    /// - Throws: `ValidationError` when there is no user with this address.
    func existingUser(_ email: String) async throws -> (Database, UserStore, User) {
        let database = try await openDatabase()
        let users = UserStore(database)
        return (database, users, try await users.existing(email))
    }

    /// The server's database; it may be running.
    func openDatabase() async throws -> Database {
        try Database.open(path: try await settings().data.database)
    }
}
