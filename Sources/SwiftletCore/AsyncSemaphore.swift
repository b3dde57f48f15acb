// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Lets a bounded number of tasks proceed at once, strictly in the order in which they called ``acquire(as:until:)`` or
/// ``enqueue(_:)``.
///
/// A waiting task leaves the queue when its deadline passes, when it is cancelled, or when another task withdraws its ticket. The
/// number of waiting tasks is bounded. With one permit it is a lock.
package final class AsyncSemaphore: Sendable {
    package enum Outcome: Equatable, Sendable {
        /// The caller has a permit, until it calls ``AsyncSemaphore/release()``.
        case acquired
        /// The deadline passed first.
        case timedOut
        /// The caller's task was cancelled first.
        case cancelled
        /// The caller's ticket was withdrawn first.
        case withdrawn
        /// As many tasks as may were waiting already.
        case full
    }

    /// Identifies one call of ``AsyncSemaphore/acquire(as:until:)``, so that another task can end its wait.
    package final class Ticket: Sendable {
        /// The outcome of a wait that ended before its caller had suspended. The ticket keeps it, and not a table by the ticket's
        /// address: another ticket may have that address later.
        private let early = Mutex<Outcome?>(nil)

        package init() {}

        fileprivate func record(_ outcome: Outcome) { early.withLock { $0 = $0 ?? outcome } }

        fileprivate func takeOutcome() -> Outcome? {
            early.withLock { outcome in
                defer { outcome = nil }
                return outcome
            }
        }
    }

    private struct Waiter {
        let ticket: Ticket
        /// nil until the caller has suspended.
        var continuation: CheckedContinuation<Outcome, Never>?
    }

    private struct State {
        var available: Int
        var waiters: [Waiter] = []
    }

    private let maximumWaiters: Int
    private let time: any TimeSource
    private let state: Mutex<State>

    /// - Parameters:
    ///   - permits: how many tasks may proceed at once.
    ///   - maximumWaiters: how many more may wait; a further one gets ``Outcome/full``.
    package init(permits: Int = 1, maximumWaiters: Int = .max, time: any TimeSource = SystemTimeSource()) {
        state = Mutex(State(available: permits))
        self.maximumWaiters = maximumWaiters
        self.time = time
    }

    /// Takes a permit, or waits for one.
    ///
    /// - Parameters:
    ///   - ticket: for ``withdraw(_:)``; a ticket is used once.
    ///   - deadline: when the wait ends at the latest; nil waits for as long as it takes.
    package func acquire(
        as ticket: Ticket = Ticket(),
        until deadline: ContinuousClock.Instant? = nil
    ) async -> Outcome {
        if let outcome = enqueue(ticket) { return outcome }
        return await wait(ticket, until: deadline)
    }

    /// Takes a permit, or a place in the queue for ``wait(_:until:)``, without suspending: the order of these calls is the order of
    /// the permits.
    ///
    /// - Returns: the outcome, if it is known at once; nil when the ticket has a place in the queue.
    package func enqueue(_ ticket: Ticket) -> Outcome? {
        // In one step with the look at the permits: a later caller cannot overtake.
        state.withLock { state in
            if let early = ticket.takeOutcome() { return early }
            if state.available > 0 {
                state.available -= 1
                return .acquired
            }
            guard state.waiters.count < maximumWaiters else { return .full }
            state.waiters.append(Waiter(ticket: ticket))
            return nil
        }
    }

    /// Waits for the permit of a ticket that ``enqueue(_:)`` put into the queue.
    package func wait(_ ticket: Ticket, until deadline: ContinuousClock.Instant? = nil) async -> Outcome {
        await withTaskGroup(of: Void.self) { group in
            if let deadline {
                group.addTask { [self, time] in
                    // A cancelled sleep means that the wait has ended already.
                    guard (try? await time.sleep(until: deadline)) != nil else { return }
                    end(ticket, .timedOut)
                }
            }
            let outcome = await withTaskCancellationHandler {
                await withCheckedContinuation { suspend(ticket, $0) }
            } onCancel: {
                end(ticket, .cancelled)
            }
            group.cancelAll()
            return outcome
        }
    }

    /// Gives a permit back; the longest waiting task gets it.
    package func release() {
        let next = state.withLock { state -> CheckedContinuation<Outcome, Never>? in
            guard !state.waiters.isEmpty else {
                state.available += 1
                return nil
            }
            let waiter = state.waiters.removeFirst()
            if waiter.continuation == nil { waiter.ticket.record(.acquired) }
            return waiter.continuation
        }
        next?.resume(returning: .acquired)
    }

    /// Ends the wait of a ticket, or lets it end at once when it begins. A permit that it has got is not taken away.
    package func withdraw(_ ticket: Ticket) {
        end(ticket, .withdrawn, isKept: true)
    }

    /// How many tasks wait.
    package var waiterCount: Int { state.withLock { $0.waiters.count } }

    private func suspend(_ ticket: Ticket, _ continuation: CheckedContinuation<Outcome, Never>) {
        let early: Outcome? = state.withLock { state in
            if let early = ticket.takeOutcome() { return early }
            guard let index = state.waiters.firstIndex(where: { $0.ticket === ticket }) else { return .cancelled }
            state.waiters[index].continuation = continuation
            return nil
        }
        if let early { continuation.resume(returning: early) }
    }

    private func end(_ ticket: Ticket, _ outcome: Outcome, isKept: Bool = false) {
        let continuation = state.withLock { state -> CheckedContinuation<Outcome, Never>? in
            guard let index = state.waiters.firstIndex(where: { $0.ticket === ticket }) else {
                if isKept { ticket.record(outcome) }
                return nil
            }
            let waiter = state.waiters.remove(at: index)
            if waiter.continuation == nil { ticket.record(outcome) }
            return waiter.continuation
        }
        continuation?.resume(returning: outcome)
    }
}
