// SPDX-License-Identifier: Apache-2.0

import SwiftletTestSupport
import SwiftletVM
import Testing

@Suite struct PoolPolicyTests {
    private let start = ContinuousClock.now

    private func plan(minimum: Int, maximum: Int, idle: Int = 0) -> PoolPolicy {
        var plan = PoolPolicy(limits: .init(minimum: minimum, maximum: maximum))
        for _ in 0..<idle {
            plan.start(isRefill: true)
            #expect(plan.started(isRefill: true) == .keep)
        }
        return plan
    }

    @Test func aWaitingMachineIsTakenAtOnce() {
        var plan = plan(minimum: 1, maximum: 4, idle: 1)
        #expect(plan.request(at: start) == .hit)
        #expect(plan.idle == 0)
        #expect(plan.request(at: start) == .queued(1))
    }

    @Test func callersAreServedInTheOrderOfTheirArrival() {
        var plan = plan(minimum: 0, maximum: 4)
        #expect(plan.request(at: start) == .queued(1))
        #expect(plan.request(at: start) == .queued(2))
        #expect(plan.request(at: start) == .queued(3))
        #expect(plan.unserved == 3)
        plan.start(isRefill: false)
        plan.start(isRefill: false)
        #expect(plan.unserved == 1)
        #expect(plan.started(isRefill: false) == .give(1))
        #expect(plan.started(isRefill: false) == .give(2))
        #expect(plan.queue == [3])
    }

    @Test func aCallerThatGaveUpIsNotServed() {
        var plan = plan(minimum: 0, maximum: 4)
        _ = plan.request(at: start)
        _ = plan.request(at: start)
        plan.start(isRefill: false)
        #expect(plan.leave(1) == true)
        #expect(plan.leave(1) == false)
        #expect(plan.started(isRefill: false) == .give(2))
    }

    @Test func whatNobodyWaitsForAnyMoreBecomesThePools() {
        var plan = plan(minimum: 0, maximum: 4)
        _ = plan.request(at: start)
        plan.start(isRefill: false)
        #expect(plan.leave(1) == true)
        #expect(plan.started(isRefill: false) == .refill)
        #expect(plan.idle == 0 && plan.refilling == 1)
        #expect(plan.started(isRefill: true) == .keep)
        #expect(plan.idle == 1)
    }

    @Test func aCallerDoesNotWaitForARefillButTakesItWhenItComesFirst() {
        var plan = plan(minimum: 1, maximum: 4)
        plan.start(isRefill: true)
        _ = plan.request(at: start)
        #expect(plan.unserved == 1)
        plan.start(isRefill: false)
        #expect(plan.started(isRefill: true) == .give(1))
        #expect(plan.started(isRefill: false) == .refill)
    }

    @Test func aFailedRefillIsNobodysFailure() {
        var plan = plan(minimum: 1, maximum: 4)
        plan.start(isRefill: true)
        _ = plan.request(at: start)
        #expect(plan.failed(isRefill: true) == nil)
        #expect(plan.queue == [1])
    }

    @Test func aFailureIsToldToTheFirstInTheQueue() {
        var plan = plan(minimum: 0, maximum: 4)
        _ = plan.request(at: start)
        _ = plan.request(at: start)
        plan.start(isRefill: false)
        #expect(plan.failed(isRefill: false) == 1)
        #expect(plan.unserved == 1)
        plan.start(isRefill: false)
        #expect(plan.failed(isRefill: false) == 2)
        plan.start(isRefill: false)
        #expect(plan.failed(isRefill: false) == nil)
    }

    @Test func theTargetFollowsRecentDemandWithinItsLimits() {
        var plan = plan(minimum: 2, maximum: 5)
        #expect(plan.target(at: start) == 2)
        for second in 0..<4 { _ = plan.request(at: start + .seconds(second)) }
        #expect(plan.target(at: start + .seconds(10)) == 4)
        for second in 4..<12 { _ = plan.request(at: start + .seconds(second)) }
        #expect(plan.target(at: start + .seconds(12)) == 5)
        #expect(plan.target(at: start + .seconds(67)) == 4)
        #expect(plan.target(at: start + .seconds(80)) == 2)
    }

    @Test func theDeficitCountsWhatIsOnItsWayForThePoolOnly() {
        var plan = plan(minimum: 3, maximum: 3, idle: 1)
        #expect(plan.deficit(at: start) == 2)
        plan.start(isRefill: true)
        #expect(plan.deficit(at: start) == 1)
        #expect(plan.request(at: start) == .hit)
        #expect(plan.deficit(at: start) == 2)
        _ = plan.request(at: start)
        plan.start(isRefill: false)
        #expect(plan.deficit(at: start) == 2)
    }

    @Test func anIdlePoolShrinksToItsMinimum() {
        var plan = plan(minimum: 1, maximum: 5, idle: 4)
        #expect(plan.surplus(at: start) == 3)
        plan.lost()
        #expect(plan.surplus(at: start) == 2)
    }

    @Test func noMachineIsEverLostOrGivenTwice() {
        var generator = SeededGenerator(seed: 11)
        var plan = PoolPolicy(limits: .init(minimum: 2, maximum: 4))
        var waiting: Set<PoolPolicy.Ticket> = []
        var (starting, refilling, idle) = (0, 0, 0)
        for step in 0..<fuzzRounds(20_000) {
            let isRefill = Bool.random(using: &generator)
            switch Int.random(in: 0..<5, using: &generator) {
            case 0:
                switch plan.request(at: start + .milliseconds(step)) {
                case .hit: idle -= 1
                case .queued(let ticket): #expect(waiting.insert(ticket).inserted)
                }
            case 1:
                plan.start(isRefill: isRefill)
                if isRefill { refilling += 1 } else { starting += 1 }
            case 2 where isRefill ? refilling > 0 : starting > 0:
                if isRefill { refilling -= 1 } else { starting -= 1 }
                switch plan.started(isRefill: isRefill) {
                case .give(let ticket): #expect(waiting.remove(ticket) != nil)
                case .keep:
                    #expect(waiting.isEmpty && isRefill)
                    idle += 1
                case .refill:
                    #expect(waiting.isEmpty && !isRefill)
                    refilling += 1
                }
            case 3 where isRefill ? refilling > 0 : starting > 0:
                if isRefill { refilling -= 1 } else { starting -= 1 }
                if let ticket = plan.failed(isRefill: isRefill) { #expect(waiting.remove(ticket) != nil) }
            default:
                if let ticket = waiting.randomElement(using: &generator) {
                    #expect(plan.leave(ticket) == true)
                    waiting.remove(ticket)
                }
            }
            #expect(idle >= 0 && plan.idle == idle && plan.queue.count == waiting.count)
            #expect(plan.starting == starting && plan.refilling == refilling)
        }
    }
}
