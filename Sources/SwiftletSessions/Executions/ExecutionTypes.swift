// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore

/// A piece of code to run in a session's VM.
package struct ExecutionRequest: Sendable {
    /// nil creates a session with the defaults.
    package var session: SessionID?
    package var owner: UserID
    package var source: String
    package var language: Language
    package var mode: ExecutionMode
    /// 1...600 s; nil for as long as the VM lives. Who waits is answered before it has passed, counted from ``receivedAt``; of an
    /// execution that nobody waits for it is the time that its code may run.
    package var timeout: Duration?
    /// With one, the same request runs once however often it is made.
    package var idempotency: IdempotencyClaim?
    package var receivedAt: ContinuousClock.Instant

    package init(
        session: SessionID?,
        owner: UserID,
        source: String,
        language: Language,
        mode: ExecutionMode = .sync,
        timeout: Duration?,
        idempotency: IdempotencyClaim? = nil,
        receivedAt: ContinuousClock.Instant = .now
    ) {
        self.session = session
        self.owner = owner
        self.source = source
        self.language = language
        self.mode = mode
        self.timeout = timeout
        self.idempotency = idempotency
        self.receivedAt = receivedAt
    }
}

/// What the caller of an execution is answered. A program that failed is a result, not an error.
package struct ExecutionResult: Sendable {
    /// The execution as the answer tells it. An answer at the timeout comes before the guest has confirmed the end.
    package var record: ExecutionRecord
    package var stdout: OutputView
    package var stderr: OutputView
    /// MIME bundles, each a line of JSON.
    package var results: OutputView

    /// What a handle holds at this moment.
    package init(_ handle: ExecutionHandle) {
        record = handle.record
        stdout = OutputView(handle.log(of: .stdout))
        stderr = OutputView(handle.log(of: .stderr))
        results = OutputView(handle.log(of: .results))
    }
}
