// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Lets one caller in at a time, in the order of their arrival.
package final class TurnQueue: Sendable {
    package enum Answer: Sendable {
        /// It is the caller's turn, until it calls `release()`.
        case granted
        /// The time was over first.
        case timedOut
        /// The caller was taken out of the queue.
        case withdrawn
        /// Too many wait already.
        case full
    }

    /// One caller's place, so that another may take it out of the queue.
    package final class Ticket: Sendable {
        /// How the wait ended, if it did before it began.
        fileprivate let verdict = Mutex<Answer?>(nil)

        package init() {}
    }

    private struct Waiter {
        let ticket: Ticket
        let continuation: CheckedContinuation<Answer, Never>
    }

    private struct State {
        var busy = false
        var waiters: [Waiter] = []
    }

    private let limit: Int
    private let state = Mutex(State())

    /// - Parameter limit: how many may wait.
    package init(limit: Int) {
        self.limit = limit
    }

    /// Waits for the caller's turn, until a deadline.
    package func acquire(as ticket: Ticket = Ticket(), until deadline: ContinuousClock.Instant) async -> Answer {
        let atOnce: Answer? = state.withLock { state in
            guard state.busy else {
                state.busy = true
                return .granted
            }
            return state.waiters.count < limit ? nil : .full
        }
        if let atOnce { return atOnce }
        return await withTaskGroup(of: Void.self) { group in
            group.addTask {
                // A cancelled sleep means that the turn has come, and then nobody of this ticket waits.
                try? await Task.sleep(until: deadline, clock: .continuous)
                self.end(ticket, .timedOut)
            }
            let answer = await withCheckedContinuation { wait(as: ticket, $0) }
            group.cancelAll()
            return answer
        }
    }

    private func wait(as ticket: Ticket, _ continuation: CheckedContinuation<Answer, Never>) {
        // The turn, or the end of the wait, may have come meanwhile.
        let answer: Answer? = state.withLock { state in
            if let verdict = ticket.verdict.withLock({ $0 }) { return verdict }
            guard state.busy else {
                state.busy = true
                return .granted
            }
            state.waiters.append(Waiter(ticket: ticket, continuation: continuation))
            return nil
        }
        if let answer { continuation.resume(returning: answer) }
    }

    /// Ends the caller's turn.
    package func release() {
        let next: Waiter? = state.withLock { state in
            guard !state.waiters.isEmpty else {
                state.busy = false
                return nil
            }
            return state.waiters.removeFirst()
        }
        next?.continuation.resume(returning: .granted)
    }

    /// Takes a caller out of the queue, or keeps it out if it does not wait yet. A turn that it has is not taken away.
    package func withdraw(_ ticket: Ticket) {
        end(ticket, .withdrawn)
    }

    private func end(_ ticket: Ticket, _ answer: Answer) {
        let waiter: Waiter? = state.withLock { state in
            guard let index = state.waiters.firstIndex(where: { $0.ticket === ticket }) else {
                ticket.verdict.withLock { $0 = $0 ?? answer }
                return nil
            }
            return state.waiters.remove(at: index)
        }
        waiter?.continuation.resume(returning: answer)
    }
}
