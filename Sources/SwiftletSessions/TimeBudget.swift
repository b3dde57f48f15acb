// SPDX-License-Identifier: Apache-2.0

/// How an execution's timeout is divided, so that the answer leaves before the caller stops to wait.
///
/// Clients use the same number as their socket's read timeout: an answer at the very end would be lost, with all its output.
struct TimeBudget: Sendable {
    /// When the agent begins to end the code.
    let guestDeadline: ContinuousClock.Instant
    /// When the host answers, whatever the guest does.
    let hostDeadline: ContinuousClock.Instant

    /// The agent's ladder from its first signal to its last takes less than 0.4 s.
    init(receivedAt: ContinuousClock.Instant, timeout: Duration) {
        let guestMargin = min(max(timeout / 10, .milliseconds(500)), .milliseconds(1500))
        let hostMargin = min(max(timeout / 20, .milliseconds(100)), .milliseconds(400))
        guestDeadline = receivedAt + timeout - guestMargin
        hostDeadline = receivedAt + timeout - hostMargin
    }
}
