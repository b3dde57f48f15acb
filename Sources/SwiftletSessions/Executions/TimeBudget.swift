// SPDX-License-Identifier: Apache-2.0

/// How an execution's timeout is divided, so that the answer leaves before the caller stops to wait.
///
/// Clients use the same number as their socket's read timeout: an answer at the very end would be lost, with all its output.
package struct TimeBudget: Sendable {
    /// When the agent begins to end the code.
    package let guestDeadline: ContinuousClock.Instant
    /// When the host answers, whatever the guest does.
    package let hostDeadline: ContinuousClock.Instant

    /// The agent needs up to 0.3 s from its first signal to its last, and the guest some time to die.
    package init(receivedAt: ContinuousClock.Instant, timeout: Duration) {
        let answerMargin = min(max(timeout / 20, .milliseconds(100)), .milliseconds(400))
        let endingTime = min(max(timeout * 3 / 20, .milliseconds(400)), .milliseconds(1_200))
        hostDeadline = receivedAt + timeout - answerMargin
        guestDeadline = hostDeadline - endingTime
    }

    /// For code whose end nobody waits for at a socket: it has all of its time.
    package init(startedAt: ContinuousClock.Instant, timeout: Duration) {
        guestDeadline = startedAt + timeout
        hostDeadline = guestDeadline + .seconds(2)
    }
}
