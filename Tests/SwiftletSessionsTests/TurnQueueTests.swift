// SPDX-License-Identifier: Apache-2.0

import SwiftletSessions
import Testing

@Suite struct TurnQueueTests {
    private let later = ContinuousClock.now + .seconds(60)

    @Test func aFreeQueueGrantsAtOnce() async {
        let queue = TurnQueue(limit: 1)
        #expect(await queue.acquire(until: later) == .granted)
    }

    @Test func onlyOneIsInAtATimeAndAllGetTheirTurn() async {
        let queue = TurnQueue(limit: 100)
        let inside = Counter()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<50 {
                group.addTask {
                    #expect(await queue.acquire(until: later) == .granted)
                    #expect(await inside.add(1) == 1)
                    await Task.yield()
                    _ = await inside.add(-1)
                    queue.release()
                }
            }
        }
        #expect(await inside.value == 0)
    }

    @Test func theWaitEndsAtTheDeadlineAndTheNextIsStillServed() async {
        let queue = TurnQueue(limit: 2)
        #expect(await queue.acquire(until: later) == .granted)
        #expect(await queue.acquire(until: .now + .milliseconds(5)) == .timedOut)
        queue.release()
        #expect(await queue.acquire(until: later) == .granted)
    }

    @Test func beyondTheLimitNobodyWaits() async {
        let queue = TurnQueue(limit: 0)
        #expect(await queue.acquire(until: later) == .granted)
        #expect(await queue.acquire(until: later) == .full)
    }

    @Test func whoIsTakenOutOfTheQueueIsAnsweredAndTheOthersKeepTheirPlaces() async {
        let queue = TurnQueue(limit: 3)
        #expect(await queue.acquire(until: later) == .granted)
        let ticket = TurnQueue.Ticket()
        async let withdrawn = queue.acquire(as: ticket, until: later)
        async let other = queue.acquire(until: later)
        queue.withdraw(ticket)
        #expect(await withdrawn == .withdrawn)
        queue.release()
        #expect(await other == .granted)
    }

    @Test func aDeadlineThatHasPassedEndsTheWaitAtOnce() async {
        let queue = TurnQueue(limit: 1_000)
        #expect(await queue.acquire(until: later) == .granted)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<200 {
                group.addTask { #expect(await queue.acquire(until: .now - .seconds(1)) == .timedOut) }
            }
        }
    }

    private actor Counter {
        private(set) var value = 0

        func add(_ amount: Int) -> Int {
            value += amount
            return value
        }
    }
}
