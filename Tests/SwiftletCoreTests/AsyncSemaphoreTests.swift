// SPDX-License-Identifier: Apache-2.0

import SwiftletCore
import SwiftletTestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct AsyncSemaphoreTests {
    private let time = ControlledTime()

    private func lock(maximumWaiters: Int = 64) -> AsyncSemaphore {
        AsyncSemaphore(maximumWaiters: maximumWaiters, time: time)
    }

    /// Returns when so many tasks wait in the queue.
    private func waiters(_ count: Int, of semaphore: AsyncSemaphore) async {
        while semaphore.waiterCount != count { await Task.yield() }
    }

    @Test func waitingTasksProceedInTheOrderOfTheirCalls() async {
        let lock = lock()
        #expect(await lock.acquire() == .acquired)
        let order = Locked<[Int]>([])
        await withTaskGroup(of: Void.self) { group in
            for number in 0..<20 {
                group.addTask {
                    #expect(await lock.acquire() == .acquired)
                    order.withLock { $0.append(number) }
                    lock.release()
                }
                await waiters(number + 1, of: lock)
            }
            lock.release()
        }
        #expect(order.value == Array(0..<20))
    }

    @Test func aCallThatComesAtAReleaseDoesNotOvertakeTheQueue() async {
        let lock = lock()
        #expect(await lock.acquire() == .acquired)
        async let first = lock.acquire()
        await waiters(1, of: lock)
        lock.release()
        // The permit belongs to the waiting task already, whether it has resumed or not.
        let ticket = AsyncSemaphore.Ticket()
        async let second = lock.acquire(as: ticket)
        await waiters(1, of: lock)
        #expect(await first == .acquired)
        lock.withdraw(ticket)
        #expect(await second == .withdrawn)
    }

    @Test func theNumberOfWaitingTasksIsBoundedExactly() async {
        let lock = lock(maximumWaiters: 5)
        #expect(await lock.acquire() == .acquired)
        let outcomes = await withTaskGroup(of: AsyncSemaphore.Outcome.self) { group in
            for _ in 0..<50 { group.addTask { await lock.acquire() } }
            var outcomes: [AsyncSemaphore.Outcome] = []
            for await outcome in group {
                outcomes.append(outcome)
                // The 45 refusals come at once; then the five that wait are let in one after another.
                if outcomes.count >= 45 { lock.release() }
            }
            return outcomes
        }
        #expect(outcomes.count { $0 == .full } == 45)
        #expect(outcomes.count { $0 == .acquired } == 5)
    }

    @Test func aDeadlineEndsAWait() async {
        let lock = lock()
        #expect(await lock.acquire() == .acquired)
        async let waiting = lock.acquire(until: time.now + .seconds(5))
        await time.sleepers(atLeast: 1)
        time.advance(by: .seconds(4))
        #expect(lock.waiterCount == 1)
        time.advance(by: .seconds(1))
        #expect(await waiting == .timedOut)
        #expect(lock.waiterCount == 0)
    }

    @Test func aDeadlineThatHasPassedEndsTheWaitAtOnce() async {
        let lock = lock()
        #expect(await lock.acquire(until: time.now - .seconds(1)) == .acquired, "A free permit needs no wait")
        #expect(await lock.acquire(until: time.now - .seconds(1)) == .timedOut)
    }

    @Test func aCancelledTaskLeavesTheQueue() async {
        let lock = lock()
        #expect(await lock.acquire() == .acquired)
        let task = Task { await lock.acquire() }
        await waiters(1, of: lock)
        task.cancel()
        #expect(await task.value == .cancelled)
        lock.release()
        #expect(await lock.acquire() == .acquired)
    }

    @Test func aTicketWithdrawnBeforeItsWaitNeverWaits() async {
        let lock = lock()
        #expect(await lock.acquire() == .acquired)
        let ticket = AsyncSemaphore.Ticket()
        lock.withdraw(ticket)
        #expect(await lock.acquire(as: ticket) == .withdrawn)
    }

    @Test func aWithdrawalAfterTheWaitConcernsNoOtherTicket() async {
        let lock = lock()
        for _ in 0..<1_000 {
            // A ticket that is freed leaves its address to the next one.
            let ticket = AsyncSemaphore.Ticket()
            #expect(await lock.acquire(as: ticket) == .acquired)
            lock.withdraw(ticket)
            lock.release()
        }
    }

    @Test func placesAreTakenInTheOrderOfEnqueue() async {
        let lock = lock()
        let tickets = (0..<10).map { _ in AsyncSemaphore.Ticket() }
        #expect(lock.enqueue(tickets[0]) == .acquired)
        for ticket in tickets.dropFirst() { #expect(lock.enqueue(ticket) == nil) }
        let order = Locked([Int]())
        await withTaskGroup(of: Void.self) { group in
            // They begin to wait in the opposite order.
            for (number, ticket) in tickets.enumerated().dropFirst().reversed() {
                group.addTask {
                    #expect(await lock.wait(ticket) == .acquired)
                    order.withLock { $0.append(number) }
                    lock.release()
                }
            }
            lock.release()
        }
        #expect(order.value == Array(1..<10))
    }

    @Test func severalPermitsLetSoManyProceedAtOnce() async {
        let semaphore = AsyncSemaphore(permits: 3, time: time)
        let running = Locked((now: 0, most: 0))
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<30 {
                group.addTask {
                    #expect(await semaphore.acquire() == .acquired)
                    running.withLock { $0 = (now: $0.now + 1, most: max($0.most, $0.now + 1)) }
                    await Task.yield()
                    running.withLock { $0.now -= 1 }
                    semaphore.release()
                }
            }
        }
        #expect(running.value.most <= 3)
        #expect(running.value.now == 0)
    }

    @Test func releasesRacingWithDeadlinesLoseNoPermit() async {
        let lock = AsyncSemaphore(maximumWaiters: 1_000)
        for _ in 0..<200 {
            #expect(await lock.acquire() == .acquired)
            async let racing = lock.acquire(until: .now + .microseconds(50))
            await Task.yield()
            lock.release()
            if await racing == .acquired { lock.release() }
        }
        #expect(await lock.acquire(until: .now + .seconds(30)) == .acquired)
    }
}
