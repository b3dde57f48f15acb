// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import SwiftletStore
import Testing

@Suite struct AccountDirectoryTests {
    private let database: Database
    private let users: UserStore
    private let keys: KeyStore
    private let user: User

    init() async throws {
        database = try Database.inMemory()
        users = UserStore(database)
        keys = KeyStore(database)
        user = try await users.create(email: "a@example.org", name: "A", plan: "free")
    }

    @Test func aHolderIsKnownWithTheirPlan() async throws {
        let (text, key) = try await keys.create(for: user.id, label: "")
        let holder = try #require(try await AccountDirectory(database).holder(ofKey: text))
        #expect(holder.keyID == key.id)
        #expect(holder.account.email == "a@example.org")
        #expect(holder.account.planName == "free")
        #expect(holder.account.isDisabled == false)
    }

    @Test func withinItsLifeWhatWasReadIsNotReadAgain() async throws {
        let (text, key) = try await keys.create(for: user.id, label: "")
        let lasting = AccountDirectory(database, life: .seconds(3_600))
        let fleeting = AccountDirectory(database, life: .zero)
        for directory in [lasting, fleeting] { #expect(try await directory.holder(ofKey: text) != nil) }
        _ = try await keys.revoke(key.id)
        #expect(try await lasting.holder(ofKey: text) != nil)
        #expect(try await fleeting.holder(ofKey: text) == nil)
        lasting.forget()
        #expect(try await lasting.holder(ofKey: text) == nil)
    }

    @Test func aKeyThatExpiresOpensNothingAfterwardsEvenIfItIsRemembered() async throws {
        // Far enough away for a busy machine to ask before.
        let soon = Date().addingTimeInterval(3)
        let (text, _) = try await keys.create(for: user.id, label: "", expiresAt: soon)
        let directory = AccountDirectory(database, life: .seconds(3_600))
        #expect(try await directory.holder(ofKey: text) != nil)
        while Date() < soon { try await Task.sleep(for: .milliseconds(20)) }
        #expect(try await directory.holder(ofKey: text) == nil)
    }

    @Test func anotherPlanAndADisabledUserAreSeenThroughAnotherConnection() async throws {
        try await withDatabaseFile { path in
            let users = UserStore(try Database.open(path: path))
            let id = try await users.create(email: "b@example.org").id
            let directory = AccountDirectory(try Database.open(path: path), life: .zero)
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
        let directory = AccountDirectory(database)
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
        let uses = KeyUse(keys)
        let start = Date(timeIntervalSince1970: 1_700_000_000)
        func lastUse() async throws -> Date? { try await keys.key(key.id, of: user.id)?.lastUsedAt }
        try await uses.flush(at: start)
        #expect(try await lastUse() == nil)
        uses.note(key.id, at: start)
        #expect(try await lastUse() == nil)
        try await uses.flush(at: start)
        #expect(try await lastUse() == start)
        uses.note(key.id, at: start.addingTimeInterval(30))
        try await uses.flush(at: start.addingTimeInterval(59))
        #expect(try await lastUse() == start)
        try await uses.flush(at: start.addingTimeInterval(60))
        #expect(try await lastUse() == start.addingTimeInterval(30))
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

    @Test func theStandardCostIsScryptsOfThirtyTwoMebibytes() throws {
        let hash = try PasswordHash(of: "a")
        #expect(hash.text.hasPrefix("scrypt$32768$8$3$"))
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
        #expect(try await users.logIn(email: "nobody@example.org") == nil)
        let before = try #require(try await users.logIn(email: "A@Example.org"))
        #expect(before.password == nil)
        let hash = try PasswordHash(of: "secret", cost: cheap)
        try await users.setPassword(hash, of: user.id)
        let after = try #require(try await users.logIn(email: "a@example.org"))
        #expect(after.password == hash)
        #expect(after.account.tokenGeneration != before.account.tokenGeneration)
        await #expect(throws: StoreError.self) { try await users.setPassword(hash, of: UserID(rawValue: 99)) }
    }
}

@Suite struct LoginAttemptsTests {
    private let clock = TestClock()
    private let database: Database
    private let attempts: LoginAttempts

    init() throws {
        database = try Database.inMemory()
        attempts = LoginAttempts(database, now: clock.read)
    }

    private func begin(_ email: String = "a@example.org", from address: String = "192.0.2.1") async throws -> Int? {
        try await attempts.begin(email: email, address: address)
    }

    @Test func afterAFewFailuresEachMustWaitTwiceAsLong() async throws {
        for _ in 0..<6 { #expect(try await begin() == nil) }
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            #expect(try await begin() == pause)
            clock.move(Double(pause) - 0.5)
            #expect(try await begin(from: "192.0.2.2") == 1)
            clock.move(0.5)
            #expect(try await begin(from: "192.0.2.3") == nil)
        }
        #expect(try await begin("b@example.org") == nil)
        clock.move(3_601)
        for _ in 0..<6 { #expect(try await begin() == nil) }
    }

    @Test func ofManyAtOnceNoMoreAreTriedThanOneAfterAnother() async throws {
        let tried = try await withThrowingTaskGroup(of: Int?.self) { group in
            for _ in 0..<100 { group.addTask { try await begin() } }
            return try await group.reduce(0) { $0 + ($1 == nil ? 1 : 0) }
        }
        #expect(tried == 6)
    }

    @Test func oneAddressMayNotTryAllAccounts() async throws {
        for number in 0..<21 { #expect(try await begin("\(number)@example.org") == nil) }
        #expect(try await begin("another@example.org") == 1)
        #expect(try await begin("another@example.org", from: "192.0.2.2") == nil)
    }

    @Test func aSuccessForgivesItsAccountButNotItsAddress() async throws {
        for _ in 0..<5 { #expect(try await begin() == nil) }
        #expect(try await begin() == nil)
        try await attempts.succeeded(email: "a@example.org", address: "192.0.2.1")
        for _ in 0..<6 { #expect(try await begin(from: "192.0.2.9") == nil) }
        // Five failures are left of the address, so that fifteen more are free.
        for number in 0..<16 { #expect(try await begin("\(number)@example.org") == nil) }
        #expect(try await begin("x@example.org") == 1)
    }

    @Test func anAttemptThatWasNotCarriedOutCountsAsNone() async throws {
        for _ in 0..<50 {
            #expect(try await begin() == nil)
            try await attempts.withdraw(email: "a@example.org", address: "192.0.2.1")
        }
    }

    @Test func pausesSurviveARestart() async throws {
        try await withDatabaseFile { path in
            for _ in 0..<6 {
                let attempts = LoginAttempts(try Database.open(path: path), now: clock.read)
                #expect(try await attempts.begin(email: "a@example.org", address: "1") == nil)
            }
            let attempts = LoginAttempts(try Database.open(path: path), now: clock.read)
            #expect(try await attempts.begin(email: "a@example.org", address: "2") == 1)
        }
    }

    @Test func aClockThatIsSetBackMakesAPauseBeginAnewAtMost() async throws {
        for _ in 0..<6 { #expect(try await begin() == nil) }
        clock.move(1)
        #expect(try await begin() == nil)
        clock.move(-86_400)
        let wait = try #require(try await begin())
        #expect(wait == 2)
        clock.move(2)
        #expect(try await begin() == nil)
    }

    @Test func housekeepingForgetsOldFailuresOnly() async throws {
        for _ in 0..<6 { #expect(try await begin() == nil) }
        try await attempts.purge()
        #expect(try await begin() == 1)
        clock.move(3_700)
        try await attempts.purge()
        #expect(try await begin() == nil)
    }
}

@Suite struct PairingStoreTests {
    private let clock = TestClock()
    private let pairings: PairingStore
    private let user: UserID
    private let verifier = String(repeating: "v", count: 43)

    init() async throws {
        let database = try Database.inMemory()
        pairings = PairingStore(database, now: clock.read)
        user = try await UserStore(database).create(email: "a@example.org").id
    }

    private func begin() async throws -> Pairing {
        let challenge = Data(SHA256.hash(data: Data(verifier.utf8))).base64EncodedString()
            .replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
        let pairing = Pairing(state: "s", challenge: challenge, redirectURI: "http://localhost/", device: "laptop")
        #expect(try await pairings.insert(pairing))
        return pairing
    }

    @Test func aCodeIsExchangedOnce() async throws {
        let pairing = try await begin()
        #expect(try await pairings.waiting(pairing.id) == pairing)
        let code = try #require(try await pairings.confirm(pairing.id, by: user))
        #expect(try await pairings.waiting(pairing.id) == nil)
        #expect(try await pairings.confirm(pairing.id, by: user) == nil)
        #expect(try await pairings.exchange(pairing.id, code: code + "x", verifier: verifier) == nil)
        let ended = try #require(try await pairings.exchange(pairing.id, code: code, verifier: verifier))
        #expect(ended.user == user && ended.pairing == pairing)
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier) == nil)
    }

    @Test func aWrongVerifierUsesTheCodeUp() async throws {
        let pairing = try await begin()
        let code = try #require(try await pairings.confirm(pairing.id, by: user))
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier + "v") == nil)
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier) == nil)
    }

    @Test func withoutALogInThereIsNoCode() async throws {
        let pairing = try await begin()
        #expect(try await pairings.exchange(pairing.id, code: "", verifier: verifier) == nil)
        #expect(try await pairings.confirm("nothing", by: user) == nil)
    }

    @Test func afterFiveMinutesItIsOver() async throws {
        let late = try await begin()
        let code = try #require(try await pairings.confirm(late.id, by: user))
        let unseen = try await begin()
        clock.move(300)
        #expect(try await pairings.exchange(late.id, code: code, verifier: verifier) == nil)
        #expect(try await pairings.waiting(unseen.id) == nil)
        #expect(try await pairings.confirm(unseen.id, by: user) == nil)
    }

    @Test func theirNumberIsBoundedAndOldOnesMakeRoom() async throws {
        for _ in 0..<1_000 { _ = try await begin() }
        let more = Pairing(state: "s", challenge: "c", redirectURI: "r", device: "d")
        #expect(try await pairings.insert(more) == false)
        clock.move(301)
        #expect(try await pairings.insert(more))
    }
}
