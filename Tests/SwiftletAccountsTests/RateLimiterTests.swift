// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletAccounts
import SwiftletCore
import SwiftletStore
import SwiftletTestSupport
import Testing

@Suite struct RateLimiterTests {
    private let clock = TestClock()
    /// One a second in the long run.
    private let rate = Plan.Rate(perMinute: 60, burst: 100)

    private func admitted(_ limiters: [RateLimiter], attempts: Int, name: String = "a") async throws -> Int {
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for number in 0..<attempts {
                let limiter = limiters[number % limiters.count]
                group.addTask { [rate] in try await limiter.charge(name, rate).isAdmitted }
            }
            return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
    }

    @Test func ofAThousandAtOnceExactlyTheBurstIsAdmitted() async throws {
        try await withDatabaseFile { path in
            let limiter = RateLimiter(try Database.open(path: path), now: clock.read)
            #expect(try await admitted([limiter], attempts: 1_000) == 100)
        }
    }

    @Test func twoThatShareADatabaseAdmitTheBurstTogether() async throws {
        try await withDatabaseFile { path in
            let limiters = [
                RateLimiter(try Database.open(path: path), now: clock.read),
                RateLimiter(try Database.open(path: path), now: clock.read),
            ]
            #expect(try await admitted(limiters, attempts: 1_000) == 100)
            clock.move(7)
            #expect(try await admitted(limiters, attempts: 200) == 7)
        }
    }

    @Test func usedTokensStayUsedAfterARestart() async throws {
        try await withDatabaseFile { path in
            let before = RateLimiter(try Database.open(path: path), now: clock.read)
            #expect(try await admitted([before], attempts: 60) == 60)
            clock.move(2)
            let after = RateLimiter(try Database.open(path: path), now: clock.read)
            #expect(try await admitted([after], attempts: 99) == 42)
        }
    }

    @Test func limitsOfUsersAreIndependent() async throws {
        let limiter = RateLimiter(try Database.inMemory(), now: clock.read)
        #expect(try await admitted([limiter], attempts: 150, name: "a") == 100)
        #expect(try await admitted([limiter], attempts: 150, name: "b") == 100)
    }

    @Test func aRefusalTellsWhenToComeAgainAndThenOneIsAdmitted() async throws {
        let limiter = RateLimiter(try Database.inMemory(), now: clock.read)
        let rate = Plan.Rate(perMinute: 6, burst: 2)
        let first = try await limiter.charge("a", rate)
        #expect(first.isAdmitted && first.limit == 2 && first.remaining == 1)
        #expect(first.resetAfter == 10 && first.retryAfter == 0)
        #expect(try await limiter.charge("a", rate).isAdmitted)
        clock.move(3)
        for _ in 0..<3 {
            let refused = try await limiter.charge("a", rate)
            #expect(!refused.isAdmitted && refused.limit == 2 && refused.remaining == 0)
            #expect(refused.resetAfter == 17 && refused.retryAfter == 7)
        }
        clock.move(4)
        // The remembered refusal says what the database would.
        let later = try await limiter.charge("a", rate)
        #expect(!later.isAdmitted && later.remaining == 0 && later.resetAfter == 13 && later.retryAfter == 3)
        clock.move(3)
        #expect(try await limiter.charge("a", rate).isAdmitted)
        #expect(try await limiter.charge("a", rate).isAdmitted == false)
    }

    @Test func aRefusalDoesNotOutliveTheLimitThatItCameFrom() async throws {
        let limiter = RateLimiter(try Database.inMemory(), now: clock.read)
        let slow = Plan.Rate(perMinute: 1, burst: 1)
        #expect(try await limiter.charge("a", slow).isAdmitted)
        #expect(try await limiter.charge("a", slow).isAdmitted == false)
        #expect(try await limiter.charge("a", Plan.Rate(perMinute: 600, burst: 1_000)).isAdmitted)
    }

    @Test(arguments: [60, 3_600, 31_536_000] as [Double])
    func aClockThatIsSetBackNeitherBlocksNorRefillsALimit(seconds: Double) async throws {
        let limiter = RateLimiter(try Database.inMemory(), now: clock.read)
        #expect(try await admitted([limiter], attempts: 200) == 100)
        clock.move(-seconds)
        #expect(try await admitted([limiter], attempts: 200) == 0)
        clock.move(1)
        #expect(try await admitted([limiter], attempts: 200) == 1)
        clock.move(5)
        #expect(try await admitted([limiter], attempts: 200) == 5)
    }

    @Test func aClockThatIsSetBackRepeatedlyRefillsNoLimit() async throws {
        let limiter = RateLimiter(try Database.inMemory(), now: clock.read)
        #expect(try await admitted([limiter], attempts: 200) == 100)
        for _ in 0..<20 {
            clock.move(-30)
            #expect(try await limiter.charge("a", rate).isAdmitted == false)
        }
    }

    @Test func neverMoreIsAdmittedThanTheBurstAndWhatTimeGives() async throws {
        let limiter = RateLimiter(try Database.inMemory(), now: clock.read)
        let rate = Plan.Rate(perMinute: 120, burst: 5)
        var elapsed = 0.0
        var count = 0
        for _ in 0..<2_000 {
            let step = Double.random(in: 0...0.7)
            clock.move(step)
            elapsed += step
            if try await limiter.charge("a", rate).isAdmitted { count += 1 }
            #expect(Double(count) <= 5 + elapsed * 2 + 1e-3)
        }
        // A client that retries continuously gets nearly the whole rate.
        #expect(Double(count) > elapsed * 2 * 0.9)
    }

    @Test func lookingCostsNothing() async throws {
        let limiter = RateLimiter(try Database.inMemory(), now: clock.read)
        for _ in 0..<3 { #expect(try await limiter.status("a", rate).remaining == 100) }
        _ = try await limiter.charge("a", rate)
        #expect(try await limiter.status("a", rate).remaining == 99)
    }

    @Test func housekeepingForgetsOnlyWhatIsWhole() async throws {
        let limiter = RateLimiter(try Database.inMemory(), now: clock.read)
        _ = try await limiter.charge("a", rate)
        _ = try await limiter.charge("a", rate)
        clock.move(1)
        try await limiter.purge()
        #expect(try await limiter.status("a", rate).remaining == 99)
        clock.move(2)
        try await limiter.purge()
        #expect(try await limiter.status("a", rate).remaining == 100)
    }
}

@Suite struct PlanCatalogTests {
    @Test func theBuiltInPlansAreThereAndUnlimitedIsTheDefault() throws {
        #expect(PlanCatalog.standard.names == ["free", "pro", "unlimited"])
        #expect(PlanCatalog.standard.defaultPlan == .unlimited)
        #expect(Plan.unlimited.requests == nil)
        #expect(try PlanCatalog.standard.plan(named: "free").allowsEgress == false)
    }

    @Test func aFileAddsPlansAndReplacesThem() throws {
        let json =
            #"{"team": {"requestsPerMinute": 600, "requestBurst": 5, "egress": false}, "free": {"concurrentVms": 1}}"#
        let catalog = try PlanCatalog(json: Data(json.utf8), defaultPlan: "team")
        #expect(catalog.names == ["free", "pro", "team", "unlimited"])
        #expect(catalog.defaultPlan.requests == Plan.Rate(perMinute: 600, burst: 5))
        #expect(catalog.defaultPlan.allowsEgress == false)
        let free = try catalog.plan(named: "free")
        #expect(free.concurrentVMs == 1 && free.requests == nil)
    }

    @Test(arguments: [
        "", "[]", "{", #"{"a": 1}"#, #"{"a": {"requestsPerMinut": 1}}"#, #"{"a": {"requestsPerMinute": 0}}"#,
        #"{"a": {"requestsPerMinute": 1.5}}"#, #"{"a": {"requestsPerMinute": true}}"#, #"{"a": {"requestBurst": 1}}"#,
        #"{"a": {"memoryMb": "512"}}"#, #"{"a": {"egress": "yes"}}"#, #"{"": {}}"#,
    ])
    func aMalformedPlanIsRefused(json: String) {
        #expect(throws: StoreError.self) { try PlanCatalog(json: Data(json.utf8)) }
    }

    @Test func anUnknownDefaultIsRefusedWithTheNamesThatThereAre() {
        let error = #expect(throws: StoreError.self) { try PlanCatalog(json: nil, defaultPlan: "gold") }
        #expect(error?.description.contains("free, pro, unlimited") == true)
    }
}
