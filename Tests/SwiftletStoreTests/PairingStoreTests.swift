// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import SwiftletStore
import Testing

@Suite struct PairingStoreTests {
    private let clock = TestClock()
    private let pairings: PairingStore
    private let users: UserStore
    private let user: UserID
    private let verifier = String(repeating: "v", count: 43)

    init() async throws {
        let database = try Database.inMemory()
        pairings = PairingStore(database, now: clock.read)
        users = UserStore(database)
        user = try await users.create(email: "a@example.org").id
    }

    private var account: Account {
        get async throws { try #require(try await users.logIn(email: "a@example.org")).account }
    }

    private func begin(from household: Household = Household("192.0.2.1")) async throws -> Pairing {
        let pairing = pairing()
        #expect(try await pairings.insert(pairing, from: household) == .waits)
        return pairing
    }

    private func pairing() -> Pairing {
        let challenge = Data(SHA256.hash(data: Data(verifier.utf8))).base64EncodedString()
            .replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
        return Pairing(state: "s", challenge: challenge, redirectURI: "http://localhost/", device: "laptop")
    }

    @Test func aCodeIsExchangedOnce() async throws {
        let pairing = try await begin()
        #expect(try await pairings.waiting(pairing.id) == pairing)
        let code = try #require(try await pairings.confirm(pairing.id, by: account))
        #expect(try await pairings.waiting(pairing.id) == nil)
        #expect(try await pairings.confirm(pairing.id, by: account) == nil)
        #expect(try await pairings.exchange(pairing.id, code: code + "x", verifier: verifier) == nil)
        let ended = try #require(try await pairings.exchange(pairing.id, code: code, verifier: verifier))
        #expect(ended.account.id == user && ended.pairing == pairing)
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier) == nil)
    }

    @Test func aWrongVerifierUsesTheCodeUp() async throws {
        let pairing = try await begin()
        let code = try #require(try await pairings.confirm(pairing.id, by: account))
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier + "v") == nil)
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier) == nil)
    }

    @Test func withoutALogInThereIsNoCode() async throws {
        let pairing = try await begin()
        #expect(try await pairings.exchange(pairing.id, code: "", verifier: verifier) == nil)
        #expect(try await pairings.confirm("nothing", by: account) == nil)
    }

    @Test func afterFiveMinutesItIsOver() async throws {
        let late = try await begin()
        let code = try #require(try await pairings.confirm(late.id, by: account))
        let unseen = try await begin()
        clock.move(300)
        #expect(try await pairings.exchange(late.id, code: code, verifier: verifier) == nil)
        #expect(try await pairings.waiting(unseen.id) == nil)
        #expect(try await pairings.confirm(unseen.id, by: account) == nil)
    }

    @Test func aCodeDiesWithThePasswordThatItsUserLoggedInWith() async throws {
        let pairing = try await begin()
        let code = try #require(try await pairings.confirm(pairing.id, by: account))
        try await users.setPassword(PasswordHash(fittingNothingAt: .standard), of: user)
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier) == nil)
    }

    @Test func aPasswordThatChangedWhileItWasCheckedGivesACodeThatIsWorthless() async throws {
        let pairing = try await begin()
        let checked = try await account
        try await users.setPassword(PasswordHash(fittingNothingAt: .standard), of: user)
        let code = try #require(try await pairings.confirm(pairing.id, by: checked))
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier) == nil)
    }

    @Test func aDisabledUsersCodeIsWorthless() async throws {
        let pairing = try await begin()
        try await users.setDisabled(true, user)
        // Its generation is the one that counts: what refuses it is that they are shut out.
        let code = try #require(try await pairings.confirm(pairing.id, by: account))
        #expect(try await pairings.exchange(pairing.id, code: code, verifier: verifier) == nil)
    }

    @Test func ofOneHouseholdTenWaitAndTheirEndMakesRoom() async throws {
        let first = try await begin()
        clock.move(10)
        for _ in 1..<10 { _ = try await begin() }
        #expect(
            try await pairings.insert(pairing(), from: Household("192.0.2.1")) == .tooMany(limit: 10, retryAfter: 290)
        )
        _ = try await begin(from: Household("192.0.2.2"))
        let code = try #require(try await pairings.confirm(first.id, by: account))
        #expect(try await pairings.exchange(first.id, code: code, verifier: verifier) != nil)
        _ = try await begin()
        clock.move(301)
        _ = try await begin()
    }

    @Test func manyHouseholdsOfOneNetworkTakeNobodyElsesPlaces() async throws {
        for number in 0..<100 { _ = try await begin(from: Household("\(number)/64", network: "n/48")) }
        let more = Household("100/64", network: "n/48")
        #expect(try await pairings.insert(pairing(), from: more) == .tooMany(limit: 100, retryAfter: 300))
        _ = try await begin(from: Household("100/64", network: "other/48"))
    }

    @Test func aThousandThatWaitElsewhereKeepNobodyFromLoggingIn() async throws {
        for number in 0..<1_000 { _ = try await begin(from: Household("192.0.2.\(number)")) }
        _ = try await begin(from: Household("198.51.100.1"))
    }
}
