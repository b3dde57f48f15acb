// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore
import SwiftletStore
import SwiftletTestSupport
import Testing

@Suite struct LoginAttemptsTests {
    private let clock = TestClock()
    private let database: Database
    private let attempts: LoginAttemptStore

    init() throws {
        database = try Database.inMemory()
        attempts = LoginAttemptStore(database, now: clock.read)
    }

    private static let home = "192.0.2.1"
    private static let owner = "a@example.org"

    /// Begins an attempt; the seconds to wait, if it must.
    private func begin(_ email: String = owner, from address: String = home) async throws -> Int? {
        try await attempts.wait(email, ClientAddress(address))
    }

    private func succeed(_ email: String = owner, from address: String = home) async throws {
        try await attempts.succeeded(try await attempts.admitted(email, ClientAddress(address)))
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
        try await succeed()
        for _ in 0..<6 { #expect(try await begin(from: "192.0.2.9") == nil) }
        // Five failures are left of the address, so that fifteen more are free.
        for number in 0..<16 { #expect(try await begin("\(number)@example.org") == nil) }
        #expect(try await begin("x@example.org") == 1)
    }

    @Test func anAttemptThatWasNotCarriedOutCountsAsNone() async throws {
        for _ in 0..<50 {
            try await attempts.withdraw(try await attempts.admitted(Self.owner, ClientAddress(Self.home)))
        }
    }

    @Test func pausesSurviveARestart() async throws {
        try await withDatabaseFile { path in
            for _ in 0..<6 {
                let attempts = LoginAttemptStore(try Database.open(path: path), now: clock.read)
                #expect(try await attempts.wait(Self.owner, ClientAddress("1")) == nil)
            }
            let attempts = LoginAttemptStore(try Database.open(path: path), now: clock.read)
            #expect(try await attempts.wait(Self.owner, ClientAddress("2")) == 1)
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

    @Test func whoeverKeepsAnAccountBlockedDoesNotKeepItsOwnerOut() async throws {
        try await succeed()
        for _ in 0..<6 { _ = try await begin(from: "192.0.2.66") }
        // The attacker takes the first moment after each pause; from elsewhere no log-in succeeds.
        for round in 0..<15 {
            let wait = try #require(try await begin(from: "192.0.2.\(100 + round)"))
            #expect(try await begin() == nil)
            try await succeed()
            clock.move(Double(wait))
            #expect(try await begin(from: "192.0.2.\(100 + round)") == nil)
            #expect(try await begin(from: "198.51.100.7") != nil)
        }
    }

    @Test func fromAKnownPlaceGuessesAreCountedToo() async throws {
        try await succeed()
        for _ in 0..<6 { #expect(try await begin() == nil) }
        #expect(try await begin() == 1)
        // Their own success does not forgive what others did to the account.
        for _ in 0..<6 { #expect(try await begin(from: "192.0.2.66") == nil) }
        clock.move(0.5)
        #expect(try await begin(from: "192.0.2.67") == 1)
        clock.move(0.5)
        try await succeed()
        _ = try await begin(from: "192.0.2.68")
        #expect(try await begin(from: "192.0.2.67") == 2)
    }

    @Test func aClientAddressIsKnownForItsAccountAlone() async throws {
        try await succeed()
        for _ in 0..<6 { #expect(try await begin("b@example.org", from: "192.0.2.66") == nil) }
        #expect(try await begin("b@example.org") == 1)
    }

    @Test func theTwentyLastUsedClientAddressesOfAnAccountAreKnown() async throws {
        for number in 1...21 {
            try await succeed(from: "192.0.2.\(number)")
            clock.move(1)
        }
        for _ in 0..<6 { #expect(try await begin(from: "198.51.100.1") == nil) }
        #expect(try await begin(from: "192.0.2.1") == 1)
        for number in 2...21 { #expect(try await begin(from: "192.0.2.\(number)") == nil) }
    }

    @Test func aClientAddressIsDeletedThreeMonthsAfterItsLastUse() async throws {
        try await succeed()
        clock.move(89 * 86_400)
        try await attempts.purge()
        for _ in 0..<6 { #expect(try await begin(from: "192.0.2.66") == nil) }
        #expect(try await begin() == nil)
        clock.move(2 * 86_400)
        try await attempts.purge()
        for _ in 0..<6 { #expect(try await begin(from: "192.0.2.66") == nil) }
        #expect(try await begin() == 1)
    }

    @Test func aNetworkOfManyClientAddressesHasALimitOfItsOwn() async throws {
        func begin(_ number: Int) async throws -> Int? {
            try await attempts.wait("\(number)@example.org", ClientAddress("\(number)/64", network: "n/48"))
        }
        for number in 0..<101 { #expect(try await begin(number) == nil) }
        #expect(try await begin(1_000) == 1)
        #expect(try await attempts.wait("x@example.org", ClientAddress("1000/64", network: "other/48")) == nil)
    }
}

extension LoginAttemptStore {
    /// Begins an attempt; the seconds to wait, if it must.
    fileprivate func wait(_ email: String, _ clientAddress: ClientAddress) async throws -> Int? {
        switch try await begin(email: email, from: clientAddress) {
        case .attempt: nil
        case .refused(let seconds, _): seconds
        }
    }

    /// Begins an attempt that must be admitted.
    fileprivate func admitted(_ email: String, _ clientAddress: ClientAddress) async throws -> LoginAttempt {
        let beginning = try await begin(email: email, from: clientAddress)
        guard case .attempt(let attempt) = beginning else { throw StoreError("The attempt was refused: \(beginning)") }
        return attempt
    }
}
