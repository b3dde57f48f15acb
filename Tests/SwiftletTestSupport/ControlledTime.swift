// SPDX-License-Identifier: Apache-2.0

package import Foundation
import SwiftletCore
import Synchronization

/// Clocks that stand still until a test advances them.
package final class ControlledTime: TimeSource {
    private struct Sleeper {
        let deadline: ContinuousClock.Instant
        let continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var elapsed = Duration.zero
        /// What the wall clock is off by, when a test has set it.
        var wallClockOffset = 0.0
        var lastNumber = 0
        var sleepers: [Int: Sleeper] = [:]
        var cancelled: Set<Int> = []
        var observers: [(count: Int, continuation: CheckedContinuation<Void, Never>)] = []
    }

    private let start = ContinuousClock.now
    private let startDate = Date(timeIntervalSince1970: 1_700_000_000)
    private let state = Mutex(State())

    package init() {}

    package var now: ContinuousClock.Instant { start + state.withLock { $0.elapsed } }

    package var date: Date {
        state.withLock { startDate.addingTimeInterval($0.elapsed / .seconds(1) + $0.wallClockOffset) }
    }

    /// Moves both clocks, and wakes the tasks whose deadline is reached.
    package func advance(by duration: Duration) {
        let due = state.withLock { state -> [Sleeper] in
            state.elapsed += duration
            let now = start + state.elapsed
            let numbers = state.sleepers.filter { $0.value.deadline <= now }.map(\.key)
            return numbers.compactMap { state.sleepers.removeValue(forKey: $0) }
        }
        for sleeper in due.sorted(by: { $0.deadline < $1.deadline }) { sleeper.continuation.resume() }
    }

    /// Waits until a task sleeps, and moves both clocks to the earliest deadline.
    package func advanceToNextDeadline() async {
        await sleepers(atLeast: 1)
        let remaining = state.withLock { state in
            state.sleepers.values.map(\.deadline).min().map { $0 - (start + state.elapsed) }
        }
        if let remaining { advance(by: remaining) }
    }

    /// Sets the wall clock forward or back, as an administrator would.
    package func setWallClock(off seconds: Double) {
        state.withLock { $0.wallClockOffset = seconds }
    }

    /// Waits until so many tasks sleep.
    package func sleepers(atLeast count: Int) async {
        await withCheckedContinuation { continuation in
            let isThere = state.withLock { state in
                if state.sleepers.count >= count { return true }
                state.observers.append((count, continuation))
                return false
            }
            if isThere { continuation.resume() }
        }
    }

    package func sleep(until deadline: ContinuousClock.Instant) async throws {
        let number = state.withLock { state in
            state.lastNumber += 1
            return state.lastNumber
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                suspend(number, Sleeper(deadline: deadline, continuation: continuation))
            }
        } onCancel: {
            let sleeper = state.withLock { state in
                if state.sleepers[number] == nil { state.cancelled.insert(number) }
                return state.sleepers.removeValue(forKey: number)
            }
            sleeper?.continuation.resume(throwing: CancellationError())
        }
    }

    private func suspend(_ number: Int, _ sleeper: Sleeper) {
        enum Step { case wait, wake, cancel }
        let (step, observers) = state.withLock { state -> (Step, [CheckedContinuation<Void, Never>]) in
            if state.cancelled.remove(number) != nil { return (.cancel, []) }
            if sleeper.deadline <= start + state.elapsed { return (.wake, []) }
            state.sleepers[number] = sleeper
            let count = state.sleepers.count
            let satisfied = state.observers.filter { $0.count <= count }.map(\.continuation)
            state.observers.removeAll { $0.count <= count }
            return (.wait, satisfied)
        }
        switch step {
        case .wait: break
        case .wake: sleeper.continuation.resume()
        case .cancel: sleeper.continuation.resume(throwing: CancellationError())
        }
        for observer in observers { observer.resume() }
    }
}
