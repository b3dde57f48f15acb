// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletAccounts
import SwiftletCore
import SwiftletStore
import SwiftletTestSupport
import Synchronization
import Testing

@Suite struct AccountLookupTests {
    private let database: Database
    private let users: UserStore
    private let keys: APIKeyStore
    private let user: User

    init() async throws {
        database = try Database.inMemory()
        users = UserStore(database)
        keys = APIKeyStore(database)
        user = try await users.create(email: "a@example.org", name: "A", plan: "free")
    }

    @Test func aHolderIsKnownWithTheirPlan() async throws {
        let (text, key) = try await keys.create(for: user.id, label: "")
        let owner = try #require(try await AccountLookup(database).owner(ofKey: text))
        #expect(owner.keyID == key.id)
        #expect(owner.account.email == "a@example.org")
        #expect(owner.account.planName == "free")
        #expect(owner.account.isDisabled == false)
    }

    @Test func withinItsLifeWhatWasReadIsNotReadAgain() async throws {
        let (text, key) = try await keys.create(for: user.id, label: "")
        let lasting = AccountLookup(database, life: .seconds(3_600))
        let fleeting = AccountLookup(database, life: .zero)
        for directory in [lasting, fleeting] { #expect(try await directory.owner(ofKey: text) != nil) }
        _ = try await keys.revoke(key.id)
        #expect(try await lasting.owner(ofKey: text) != nil)
        #expect(try await fleeting.owner(ofKey: text) == nil)
        lasting.invalidate(user.id)
        #expect(try await lasting.owner(ofKey: text) == nil)
    }

    @Test func aKeyThatExpiresOpensNothingAfterwardsEvenIfItIsRemembered() async throws {
        let time = ControlledTime()
        let expiry = time.date.addingTimeInterval(3)
        let (text, _) = try await keys.create(for: user.id, label: "", expiresAt: expiry)
        let lookup = AccountLookup(database, life: .seconds(3_600), time: time)
        #expect(try await lookup.owner(ofKey: text) != nil)
        time.advance(by: .milliseconds(2_999))
        #expect(try await lookup.owner(ofKey: text) != nil)
        time.advance(by: .milliseconds(1))
        #expect(try await lookup.owner(ofKey: text) == nil)
    }

    @Test func anotherPlanAndADisabledUserAreSeenThroughAnotherConnection() async throws {
        try await withDatabaseFile { path in
            let users = UserStore(try Database.open(path: path))
            let id = try await users.create(email: "b@example.org").id
            let directory = AccountLookup(try Database.open(path: path), life: .zero)
            #expect(try await directory.plan(of: id) == .unlimited)
            try await users.setPlan("free", of: id)
            #expect(try await directory.plan(of: id).name == "free")
            let before = try #require(try await directory.account(id))
            try await users.setDisabled(true, id)
            let disabled = try #require(try await directory.account(id))
            #expect(disabled.isDisabled && disabled.tokenGeneration != before.tokenGeneration)
            try await users.setDisabled(false, id)
            #expect(try await directory.account(id)?.isDisabled == false)
        }
    }

    @Test func aPlanThatTheServerDoesNotKnowIsAnErrorAndNoLicence() async throws {
        try await users.setPlan("gold", of: user.id)
        let directory = AccountLookup(database)
        await #expect(throws: StoreError.self) { try await directory.plan(of: user.id) }
        await #expect(throws: StoreError.self) { try await directory.plan(of: UserID(rawValue: 99)) }
    }

    @Test func aKeyIsTheirsAlone() async throws {
        let other = try await users.create(email: "b@example.org")
        let (_, key) = try await keys.create(for: user.id, label: "mine")
        #expect(try await keys.key(key.id, of: other.id) == nil)
        #expect(try await keys.update(key.id, of: other.id, label: "theirs", expiresAt: nil) == nil)
        let later = Date(timeIntervalSince1970: 4_000_000_000)
        #expect(try await keys.update(key.id, of: user.id, label: "new", expiresAt: later)?.expiresAt == later)
        #expect(try await keys.key(key.id, of: user.id)?.label == "new")
        _ = try await keys.revoke(key.id)
        #expect(try await keys.key(key.id, of: user.id) == nil)
        #expect(try await keys.update(key.id, of: user.id, label: "x", expiresAt: nil) == nil)
    }

    @Test func aKeysUseIsWrittenDownAtMostOnceAMinute() async throws {
        let key = try await keys.create(for: user.id, label: "").key
        let uses = APIKeyUsageRecorder(keys)
        let start = Date(timeIntervalSince1970: 1_700_000_000)
        func lastUse() async throws -> Date? { try await keys.key(key.id, of: user.id)?.lastUsedAt }
        try await uses.flush(at: start)
        #expect(try await lastUse() == nil)
        uses.record(key.id, at: start)
        #expect(try await lastUse() == nil)
        try await uses.flush(at: start)
        #expect(try await lastUse() == start)
        uses.record(key.id, at: start.addingTimeInterval(30))
        try await uses.flush(at: start.addingTimeInterval(59))
        #expect(try await lastUse() == start)
        try await uses.flush(at: start.addingTimeInterval(60))
        #expect(try await lastUse() == start.addingTimeInterval(30))
    }

    @Test func aUseThatCouldNotBeWrittenIsWrittenTheNextTime() async throws {
        struct Failure: Error {}
        let isBroken = Mutex(true)
        let written = Mutex<[[Int64: Date]]>([])
        let uses = APIKeyUsageRecorder { uses in
            if isBroken.withLock({ $0 }) { throw Failure() }
            written.withLock { $0.append(uses) }
        }
        let start = Date(timeIntervalSince1970: 1_700_000_000)
        uses.record(1, at: start)
        uses.record(2, at: start)
        await #expect(throws: Failure.self) { try await uses.flush(at: start) }
        uses.record(2, at: start.addingTimeInterval(1))
        isBroken.withLock { $0 = false }
        try await uses.flush(at: start.addingTimeInterval(1))
        #expect(written.withLock { $0 } == [[1: start, 2: start.addingTimeInterval(1)]])
    }
}

@Suite struct AccountCacheTests {
    private let start = ContinuousClock.now
    private let owner: APIKeyOwner

    init() async throws {
        let database = try Database.inMemory()
        let user = try await UserStore(database).create(email: "a@example.org")
        let (text, _) = try await APIKeyStore(database).create(for: user.id, label: "")
        owner = try #require(try await AccountLookup(database).owner(ofKey: text))
    }

    @Test func anEntryExpiresItsLifeAfterItsReadingBegan() {
        var cache = AccountCache(life: .seconds(1))
        let reading = cache.reading(at: start)
        cache.insert(owner, ofKey: "hash", from: reading)
        #expect(cache.owner(ofKey: "hash", at: start + .milliseconds(999)) == owner)
        #expect(cache.account(owner.account.id, at: start) == owner.account)
        #expect(cache.owner(ofKey: "hash", at: start + .seconds(1)) == nil)
        #expect(cache.account(owner.account.id, at: start + .seconds(1)) == nil)
    }

    @Test func invalidationRemovesTheEntriesOfOneUserAndKeepsThoseOfOthers() async throws {
        let database = try Database.inMemory()
        _ = try await UserStore(database).create(email: "first@example.org")
        let user = try await UserStore(database).create(email: "b@example.org")
        let (text, _) = try await APIKeyStore(database).create(for: user.id, label: "")
        let other = try #require(try await AccountLookup(database).owner(ofKey: text))
        try #require(other.account.id != owner.account.id)
        var cache = AccountCache(life: .seconds(1))
        let before = cache.reading(at: start)
        cache.insert(owner, ofKey: "hash", from: before)
        cache.insert(other, ofKey: "other", from: before)
        cache.invalidate(owner.account.id)
        #expect(cache.owner(ofKey: "hash", at: start) == nil)
        #expect(cache.account(owner.account.id, at: start) == nil)
        #expect(cache.owner(ofKey: "other", at: start) == other)
        #expect(cache.account(other.account.id, at: start) == other.account)
        // A read of another user that was under way is still good.
        cache.insert(other, ofKey: "other 2", from: before)
        #expect(cache.owner(ofKey: "other 2", at: start) == other)
    }

    @Test func aReadThatBeganBeforeAChangeIsNotCached() {
        var cache = AccountCache(life: .seconds(1))
        let before = cache.reading(at: start)
        cache.invalidate(owner.account.id)
        cache.insert(owner, ofKey: "hash", from: before)
        cache.insert(owner.account, from: before)
        #expect(cache.owner(ofKey: "hash", at: start) == nil)
        #expect(cache.account(owner.account.id, at: start) == nil)
        cache.insert(owner, ofKey: "hash", from: cache.reading(at: start))
        #expect(cache.owner(ofKey: "hash", at: start) == owner)
        cache.insert(nil, ofKey: "hash", from: before)
        #expect(cache.owner(ofKey: "hash", at: start) == nil)
    }
}

@Suite struct PasswordHashTests {
    private let cheap = PasswordHash.Cost(n: 1_024, r: 8, p: 1)

    @Test(arguments: ["correct horse", "", "pässwörd 🔑", String(repeating: "x", count: 1_024)])
    func aPasswordFitsItsOwnHashAndNoOtherDoes(password: String) throws {
        let hash = try PasswordHash(of: password, cost: cheap)
        let read = try #require(PasswordHash(text: hash.text))
        #expect(read == hash)
        #expect(try read.matches(password))
        #expect(try read.matches(password + "x") == false)
        #expect(try PasswordHash(of: password, cost: cheap) != hash)
        #expect(!hash.text.contains("correct"))
    }

    @Test func theStandardCostIs32MiBOfScryptThreeTimes() throws {
        let cost = PasswordHash.Cost.standard
        #expect(cost == PasswordHash.Cost(n: 32_768, r: 8, p: 3))
        #expect(cost.n * cost.r * 128 == 32 << 20)
        #expect(try PasswordHash(of: "a", cost: cheap).text.hasPrefix("scrypt$1024$8$1$"))
    }

    @Test func nothingFitsThePlaceholder() throws {
        for password in ["", "x"] { #expect(try PasswordHash(fittingNothingAt: cheap).matches(password) == false) }
    }

    @Test(arguments: ["", "scrypt", "scrypt$1$2$3$4", "bcrypt$1024$8$1$AAAA$AAAA", "scrypt$1024$8$1$AAAA$AAAA"])
    func anythingElseIsNoHash(text: String) {
        #expect(PasswordHash(text: text) == nil)
    }

    @Test func aPasswordIsFoundWithItsAccountAndChangingItEndsTokens() async throws {
        let users = UserStore(try Database.inMemory())
        let user = try await users.create(email: "a@example.org")
        #expect(try await users.login(email: "nobody@example.org") == nil)
        let before = try #require(try await users.login(email: "A@Example.org"))
        #expect(before.passwordHash == nil)
        let hash = try PasswordHash(of: "secret", cost: cheap)
        try await users.setPassword(hash: hash.text, of: user.id)
        let after = try #require(try await users.login(email: "a@example.org"))
        #expect(after.passwordHash == hash.text)
        #expect(after.account.tokenGeneration != before.account.tokenGeneration)
        await #expect(throws: StoreError.self) {
            try await users.setPassword(hash: hash.text, of: UserID(rawValue: 99))
        }
    }
}
