// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore
import SwiftletStore
import SwiftletTestSupport
import Testing

@Suite struct DatabaseTests {
    @Test func rowsAreThereAfterReopening() async throws {
        try await withDatabaseFile { path in
            let user = try await UserStore(try Database.open(path: path)).create(email: "a@example.org")
            let again = try await UserStore(try Database.open(path: path)).user(email: "A@example.org")
            #expect(again == user)
        }
    }

    @Test func onlyItsOwnerMayReadTheFile() async throws {
        try await withDatabaseFile { path in
            _ = try Database.open(path: path)
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            #expect(attributes[.posixPermissions] as? Int == 0o600)
        }
    }

    @Test func aFileThatIsNoDatabaseIsAClearError() async throws {
        try await withDatabaseFile { path in
            let directory = URL(filePath: path).deletingLastPathComponent()
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            try Data("This is no database, and longer than a header is".utf8).write(to: URL(filePath: path))
            #expect(throws: StoreError.self) { try Database.open(path: path) }
        }
    }
}

@Suite struct UserAndKeyStoreTests {
    private let database: Database
    private let users: UserStore
    private let keys: APIKeyStore

    init() throws {
        database = try Database.inMemory()
        users = UserStore(database)
        keys = APIKeyStore(database)
    }

    @Test(arguments: ["", "a", "a@", "@b", "a@b@c", "a b@c", "a\n@b", String(repeating: "a", count: 250) + "@b.org"])
    func anEmailThatIsNoAddressIsRefused(email: String) async {
        await #expect(throws: StoreError.self) { try await users.create(email: email) }
    }

    @Test func anAddressIsTakenOnce() async throws {
        _ = try await users.create(email: "a@example.org")
        await #expect(throws: StoreError.self) { try await users.create(email: "A@Example.org") }
        #expect(try await users.list().count == 1)
    }

    @Test func aKeyHasAnOwnerUntilItIsRevoked() async throws {
        let user = try await users.create(email: "a@example.org")
        let (text, key) = try await keys.create(for: user.id, label: "x")
        #expect(text.hasPrefix("instavm_sk_"))
        #expect(text.count == 54)
        let accounts = AccountStore(database)
        #expect(try await accounts.owner(ofKeyDigest: TextDigest.of(text))?.account.id == user.id)
        #expect(try await keys.revoke(key.id))
        #expect(try await accounts.owner(ofKeyDigest: TextDigest.of(text)) == nil)
        #expect(try await keys.revoke(key.id) == false)
    }

    @Test(arguments: ["", "instavm_sk_", "' OR 1=1 --", "a\u{0}b", "🔑", String(repeating: "x", count: 1 << 20)])
    func anyOtherTextHasNoOwner(text: String) async throws {
        let user = try await users.create(email: "a@example.org")
        _ = try await keys.create(for: user.id, label: "")
        #expect(try await AccountStore(database).owner(ofKeyDigest: TextDigest.of(text)) == nil)
    }

    @Test func aUsersListHasTheirKeysOnly() async throws {
        let one = try await users.create(email: "a@example.org")
        let two = try await users.create(email: "b@example.org")
        _ = try await keys.create(for: one.id, label: "1")
        _ = try await keys.create(for: two.id, label: "2")
        #expect(try await keys.list(of: two.id).map(\.label) == ["2"])
        #expect(try await keys.list().count == 2)
    }
}

@Suite struct SessionStoreTests {
    private let sessions: SessionStore
    private let owner: UserID

    init() async throws {
        let database = try Database.inMemory()
        sessions = SessionStore(database)
        owner = try await UserStore(database).create(email: "a@example.org").id
    }

    private func record(metadata: String = "{}", environment: [String: String] = [:]) -> SessionRecord {
        SessionRecord(
            id: .random(),
            owner: owner,
            createdAt: Date(timeIntervalSince1970: 1_700_000_000.25),
            vmLifetimeSeconds: 60,
            memoryMB: 256,
            vcpuCount: 2,
            environment: environment,
            metadataJSON: metadata
        )
    }

    private func vm(_ id: String) -> SessionVM {
        SessionVM(
            id: id,
            startedAt: Date(timeIntervalSince1970: 1_700_000_001),
            expiresAt: Date(timeIntervalSince1970: 1_700_000_061)
        )
    }

    @Test func aSessionIsReadAsItWasWritten() async throws {
        let hostile = "'; DROP TABLE sessions; -- \u{0} 🎉"
        let long = String(repeating: "m", count: 1 << 20)
        let record = record(metadata: "{\"a\":\"\(long)\"}", environment: ["A": hostile, hostile: "B"])
        try await sessions.insert(record)
        #expect(try await sessions.session(record.id) == record)
        #expect(try await sessions.session(.random()) == nil)
    }

    @Test func aVMsEndIsWrittenOnceAndOnlyForTheVMThatTheSessionHas() async throws {
        let record = record()
        try await sessions.insert(record)
        _ = try await sessions.assign(vm: vm("vm-1"), to: record.id)
        let moment = Date(timeIntervalSince1970: 1_700_000_030)
        try await sessions.endVM(session: record.id, vmID: "vm-0", at: moment, reason: "another's")
        #expect(try await sessions.session(record.id)?.vm == vm("vm-1"))
        try await sessions.endVM(session: record.id, vmID: "vm-1", at: moment, reason: "first")
        try await sessions.endVM(session: record.id, vmID: "vm-1", at: Date(), reason: "second")
        let ended = try #require(try await sessions.session(record.id)?.vm)
        #expect(ended.endedAt == moment)
        #expect(ended.endReason == "first")
        _ = try await sessions.assign(vm: vm("vm-2"), to: record.id)
        #expect(try await sessions.session(record.id)?.vm == vm("vm-2"))
    }

    @Test func aServerThatStartsHasNoVMs() async throws {
        let records = [record(), record(), record()]
        for record in records { try await sessions.insert(record) }
        _ = try await sessions.assign(vm: vm("vm-1"), to: records[0].id)
        _ = try await sessions.assign(vm: vm("vm-2"), to: records[1].id)
        try await sessions.endVM(session: records[1].id, vmID: "vm-2", at: Date(), reason: "before")
        try await sessions.endAllVMs(at: Date(), reason: "restart")
        #expect(try await sessions.session(records[0].id)?.vm?.endReason == "restart")
        #expect(try await sessions.session(records[1].id)?.vm?.endReason == "before")
        #expect(try await sessions.session(records[2].id)?.vm == nil)
    }

    @Test func manyMayWriteAtOnce() async throws {
        let record = record()
        try await sessions.insert(record)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<50 {
                group.addTask { [sessions] in
                    _ = try await sessions.assign(vm: vm("vm-\(number)"), to: record.id)
                    _ = try await sessions.session(record.id)
                }
            }
            try await group.waitForAll()
        }
        #expect(try await sessions.session(record.id)?.vm != nil)
    }
}

@Suite struct SessionIDTests {
    @Test func aUUIDInAnyCaseIsTheSameSession() throws {
        let id = try #require(SessionID(rawValue: "4F0C7B9E-1111-4222-8333-444455556666"))
        #expect(id.rawValue == "4f0c7b9e-1111-4222-8333-444455556666")
    }

    @Test(arguments: ["", "x", "4f0c7b9e", "4f0c7b9e-1111-4222-8333-44445555666g", "vm-abcdefghijkl"])
    func anythingElseIsNone(text: String) {
        #expect(SessionID(rawValue: text) == nil)
    }
}
