// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import SwiftletCore
import SwiftletStore
import SwiftletTestSupport
import Testing

@Suite struct CLIAuthorizationStoreTests {
    private let clock = TestClock()
    private let cliAuthorizations: CLIAuthorizationStore
    private let users: UserStore
    private let user: UserID
    private let verifier = String(repeating: "v", count: 43)

    init() async throws {
        let database = try Database.inMemory()
        cliAuthorizations = CLIAuthorizationStore(database, now: clock.read)
        users = UserStore(database)
        user = try await users.create(email: "a@example.org").id
    }

    private var account: Account {
        get async throws { try #require(try await users.login(email: "a@example.org")).account }
    }

    private func begin(from clientAddress: ClientAddress = ClientAddress("192.0.2.1")) async throws -> CLIAuthorization
    {
        let authorization = authorization()
        #expect(try await cliAuthorizations.insert(authorization, from: clientAddress) == .waits)
        return authorization
    }

    private func authorization() -> CLIAuthorization {
        let challenge = Data(SHA256.hash(data: Data(verifier.utf8))).base64EncodedString()
            .replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
        return CLIAuthorization(state: "s", challenge: challenge, redirectURI: "http://localhost/", device: "laptop")
    }

    @Test func aCodeIsExchangedOnce() async throws {
        let authorization = try await begin()
        #expect(try await cliAuthorizations.waiting(authorization.id) == authorization)
        let code = try #require(try await cliAuthorizations.confirm(authorization.id, by: account))
        #expect(try await cliAuthorizations.waiting(authorization.id) == nil)
        #expect(try await cliAuthorizations.confirm(authorization.id, by: account) == nil)
        #expect(try await cliAuthorizations.exchange(authorization.id, code: code + "x", verifier: verifier) == nil)
        let ended = try #require(try await cliAuthorizations.exchange(authorization.id, code: code, verifier: verifier))
        #expect(ended.account.id == user && ended.authorization == authorization)
        #expect(try await cliAuthorizations.exchange(authorization.id, code: code, verifier: verifier) == nil)
    }

    @Test func aWrongVerifierUsesTheCodeUp() async throws {
        let authorization = try await begin()
        let code = try #require(try await cliAuthorizations.confirm(authorization.id, by: account))
        #expect(try await cliAuthorizations.exchange(authorization.id, code: code, verifier: verifier + "v") == nil)
        #expect(try await cliAuthorizations.exchange(authorization.id, code: code, verifier: verifier) == nil)
    }

    @Test func withoutALogInThereIsNoCode() async throws {
        let authorization = try await begin()
        #expect(try await cliAuthorizations.exchange(authorization.id, code: "", verifier: verifier) == nil)
        #expect(try await cliAuthorizations.confirm("nothing", by: account) == nil)
    }

    @Test func afterFiveMinutesItIsOver() async throws {
        let late = try await begin()
        let code = try #require(try await cliAuthorizations.confirm(late.id, by: account))
        let unseen = try await begin()
        clock.move(300)
        #expect(try await cliAuthorizations.exchange(late.id, code: code, verifier: verifier) == nil)
        #expect(try await cliAuthorizations.waiting(unseen.id) == nil)
        #expect(try await cliAuthorizations.confirm(unseen.id, by: account) == nil)
    }

    @Test func aCodeIsInvalidAfterThePasswordChanged() async throws {
        let authorization = try await begin()
        let code = try #require(try await cliAuthorizations.confirm(authorization.id, by: account))
        try await users.setPassword(hash: "another", of: user)
        #expect(try await cliAuthorizations.exchange(authorization.id, code: code, verifier: verifier) == nil)
    }

    @Test func aPasswordThatChangedDuringItsCheckGivesAnInvalidCode() async throws {
        let authorization = try await begin()
        let checked = try await account
        try await users.setPassword(hash: "another", of: user)
        let code = try #require(try await cliAuthorizations.confirm(authorization.id, by: checked))
        #expect(try await cliAuthorizations.exchange(authorization.id, code: code, verifier: verifier) == nil)
    }

    @Test func aDisabledUsersCodeIsWorthless() async throws {
        let authorization = try await begin()
        try await users.setDisabled(true, user)
        // Its generation is the one that counts: what refuses it is that they are shut out.
        let code = try #require(try await cliAuthorizations.confirm(authorization.id, by: account))
        #expect(try await cliAuthorizations.exchange(authorization.id, code: code, verifier: verifier) == nil)
    }

    @Test func ofOneHouseholdTenWaitAndTheirEndMakesRoom() async throws {
        let first = try await begin()
        clock.move(10)
        for _ in 1..<10 { _ = try await begin() }
        #expect(
            try await cliAuthorizations.insert(authorization(), from: ClientAddress("192.0.2.1"))
                == .tooMany(limit: 10, retryAfter: 290)
        )
        _ = try await begin(from: ClientAddress("192.0.2.2"))
        let code = try #require(try await cliAuthorizations.confirm(first.id, by: account))
        #expect(try await cliAuthorizations.exchange(first.id, code: code, verifier: verifier) != nil)
        _ = try await begin()
        clock.move(301)
        _ = try await begin()
    }

    @Test func manyHouseholdsOfOneNetworkTakeNobodyElsesPlaces() async throws {
        for number in 0..<100 { _ = try await begin(from: ClientAddress("\(number)/64", network: "n/48")) }
        let more = ClientAddress("100/64", network: "n/48")
        #expect(
            try await cliAuthorizations.insert(authorization(), from: more) == .tooMany(limit: 100, retryAfter: 300)
        )
        _ = try await begin(from: ClientAddress("100/64", network: "other/48"))
    }

    @Test func aThousandWaitingDevicesElsewhereBlockNoLogIn() async throws {
        for number in 0..<1_000 { _ = try await begin(from: ClientAddress("192.0.2.\(number)")) }
        _ = try await begin(from: ClientAddress("198.51.100.1"))
    }
}
