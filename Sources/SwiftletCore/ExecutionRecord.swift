// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// Where an execution stands, and how it ended.
package enum ExecutionState: String, Sendable, CaseIterable {
    /// Accepted; it waits for its turn or its VM. Becomes any other.
    case queued
    /// Its code runs in the guest. Becomes any of the following.
    case running
    case exited
    case signaled
    case timedOut = "timed_out"
    case cancelled
    case vmLost = "vm_lost"
    /// The server that ran it ended before it did.
    case nodeLost = "node_lost"

    /// Nothing of it changes any more.
    package var isFinal: Bool { self != .queued && self != .running }
}

/// One of the byte streams that an execution leaves behind.
package enum ExecutionStream: String, Sendable, CaseIterable {
    case stdout
    case stderr
    /// MIME bundles, each a line of JSON.
    case results
}

/// How the caller of an execution waits for it.
package enum ExecutionMode: String, Sendable {
    /// `POST /execute`: one answer, before the timeout has passed.
    case sync
    /// `POST /execute_async`: nobody waits.
    case async
    /// `POST /execute` as a stream of events.
    case stream
}

/// How a VM became itself: what its guest confirmed before any code ran.
package struct RestoreRecord: Codable, Equatable, Sendable {
    /// Names this life of the guest, in hexadecimal.
    package var generation: String
    /// Where its machine came from: `boot`, `template` or `pool`.
    package var origin: String
    /// The template's name; nil for a guest that was booted.
    package var template: String?
    package var confirmed: [String]
    /// From the request for a VM until the guest had confirmed.
    package var milliseconds: Int

    package init(generation: String, origin: String, template: String?, confirmed: [String], milliseconds: Int) {
        self.generation = generation
        self.origin = origin
        self.template = template
        self.confirmed = confirmed
        self.milliseconds = milliseconds
    }
}

/// An execution as the database keeps it.
package struct ExecutionRecord: Equatable, Sendable {
    /// Bytes that are kept of a stream, and bytes that were not.
    package struct Size: Equatable, Sendable {
        package var bytes: Int
        package var dropped: Int

        package init(bytes: Int = 0, dropped: Int = 0) {
            self.bytes = bytes
            self.dropped = dropped
        }
    }

    package var id: ExecutionID
    package var owner: UserID
    package var session: SessionID
    package var language: String
    package var mode: ExecutionMode
    package var state: ExecutionState
    package var createdAt: Date
    /// When its code began to run; nil when it never did.
    package var startedAt: Date?
    package var endedAt: Date?
    /// Seconds that the code may run; nil for as long as its VM lives.
    package var timeout: Double?
    package var vmID: String?
    package var vmStartedAt: Date?
    /// How the VM became itself; nil when its guest never got that far.
    package var restore: RestoreRecord?
    /// The process's exit code; 128 + n for signal n, 124 for a timeout, 130 for a cancellation; nil when there is none.
    package var exitCode: Int?
    package var signal: Int?
    /// Seconds on the clock.
    package var executionTime = 0.0
    /// Seconds of processor time, from the guest's accounting.
    package var cpuTime = 0.0
    /// The interpreter's variables are gone.
    package var stateLost = false
    /// A line of ours about how it ended; nil when there is nothing to say.
    package var note: String?
    package var sizes: [ExecutionStream: Size] = [:]
    /// When its output was thrown away; nil while it is kept.
    package var outputExpiredAt: Date?
    package var idempotency: IdempotencyClaim?

    package init(
        id: ExecutionID,
        owner: UserID,
        session: SessionID,
        language: String,
        mode: ExecutionMode,
        state: ExecutionState = .queued,
        createdAt: Date,
        timeout: Double?,
        idempotency: IdempotencyClaim? = nil
    ) {
        self.id = id
        self.owner = owner
        self.session = session
        self.language = language
        self.mode = mode
        self.state = state
        self.createdAt = createdAt
        self.timeout = timeout
        self.idempotency = idempotency
    }

    /// What is known of a stream's size.
    package func size(of stream: ExecutionStream) -> Size { sizes[stream] ?? Size() }
}

/// A caller's `Idempotency-Key` and what it was sent with.
package struct IdempotencyClaim: Hashable, Sendable {
    package var key: String
    /// A digest of the request: the same key with another request is a mistake.
    package var requestHash: String

    package init(key: String, requestHash: String) {
        self.key = key
        self.requestHash = requestHash
    }
}
