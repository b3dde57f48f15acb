// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// The clocks that a service reads and waits on. Tests give it one that they advance by hand.
package protocol TimeSource: Sendable {
    /// The monotonic clock: deadlines and lifetimes are measured on it.
    var now: ContinuousClock.Instant { get }

    /// The wall clock: for records and answers only, as it can be set at any time.
    var date: Date { get }

    /// Suspends the task until an instant of the monotonic clock.
    ///
    /// - Throws: `CancellationError` when the task is cancelled first.
    func sleep(until deadline: ContinuousClock.Instant) async throws
}

extension TimeSource {
    /// Suspends the task for a duration.
    ///
    /// - Throws: `CancellationError` when the task is cancelled first.
    package func sleep(for duration: Duration) async throws {
        try await sleep(until: now + duration)
    }
}

/// The clocks of this machine.
package struct SystemTimeSource: TimeSource {
    package init() {}

    package var now: ContinuousClock.Instant { .now }
    package var date: Date { Date() }

    package func sleep(until deadline: ContinuousClock.Instant) async throws {
        try await Task.sleep(until: deadline, clock: .continuous)
    }
}
