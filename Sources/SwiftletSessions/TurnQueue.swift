// SPDX-License-Identifier: Apache-2.0

/// Lets one caller in at a time, in the order of their arrival.
package actor TurnQueue {
    package enum Answer: Sendable {
        /// It is the caller's turn, until it calls `release()`.
        case granted
        /// The time was over first.
        case timedOut
        /// Too many wait already.
        case full
    }

    private struct Waiter {
        let number: UInt64
        let continuation: CheckedContinuation<Answer, Never>
    }

    private let limit: Int
    private var busy = false
    private var waiters: [Waiter] = []
    private var lastNumber: UInt64 = 0

    /// - Parameter limit: how many may wait.
    package init(limit: Int) {
        self.limit = limit
    }

    /// Waits for the caller's turn, until a deadline.
    package func acquire(until deadline: ContinuousClock.Instant) async -> Answer {
        guard busy else {
            busy = true
            return .granted
        }
        guard waiters.count < limit else { return .full }
        lastNumber += 1
        let number = lastNumber
        return await withTaskGroup(of: Void.self) { group in
            group.addTask {
                // A cancelled sleep means that the turn has come, and then nobody of this number waits.
                try? await Task.sleep(until: deadline, clock: .continuous)
                await self.expire(number)
            }
            let answer = await withCheckedContinuation { continuation in
                waiters.append(Waiter(number: number, continuation: continuation))
            }
            group.cancelAll()
            return answer
        }
    }

    /// Ends the caller's turn.
    package func release() {
        guard !waiters.isEmpty else {
            busy = false
            return
        }
        waiters.removeFirst().continuation.resume(returning: .granted)
    }

    private func expire(_ number: UInt64) {
        guard let index = waiters.firstIndex(where: { $0.number == number }) else { return }
        waiters.remove(at: index).continuation.resume(returning: .timedOut)
    }
}
