// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import SwiftletStore

/// A language of `POST /execute`.
package enum Language: String, Sendable, CaseIterable {
    case python
    case bash
    case javascript

    /// Calls of a session run one after another: they share an interpreter.
    package var isStateful: Bool { self != .bash }

    /// Reads a client's word for a language, common aliases included; nil when it is unknown.
    package init?(name: String) {
        switch name.lowercased() {
        case "python", "python3", "py": self = .python
        case "javascript", "js", "node": self = .javascript
        case "bash", "sh", "shell": self = .bash
        default: return nil
        }
    }
}

/// A piece of code to run in a session's VM.
package struct ExecutionRequest: Sendable {
    /// nil creates a session with the defaults.
    package var session: SessionID?
    package var owner: UserID
    package var source: String
    package var language: Language
    /// How long the caller waits for the response; 1...600 s. Counted from ``receivedAt``.
    package var timeout: Duration
    package var receivedAt: ContinuousClock.Instant

    package init(
        session: SessionID?,
        owner: UserID,
        source: String,
        language: Language,
        timeout: Duration,
        receivedAt: ContinuousClock.Instant = .now
    ) {
        self.session = session
        self.owner = owner
        self.source = source
        self.language = language
        self.timeout = timeout
        self.receivedAt = receivedAt
    }
}

/// How an execution ended.
package enum ExecutionOutcome: String, Sendable {
    case exited
    case signaled
    case timedOut = "timed_out"
    case cancelled
    case vmLost = "vm_lost"
}

/// How a VM became itself: what its guest confirmed before any code ran.
package struct RestoreRecord: Sendable {
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

/// What an execution left behind. A program that failed is a result, not an error.
package struct ExecutionResult: Sendable {
    package var session: SessionID
    package var vmID: String
    package var vmStartedAt: Date
    package var language: Language
    package var createdAt: Date
    package var outcome: ExecutionOutcome
    /// The process's exit code; 128 + n for signal n, 124 for a timeout, -1 when the VM was lost and no exit code exists.
    package var exitCode: Int
    /// The signal that ended the process, if one did.
    package var signal: Int?
    package var stdout: OutputSpool
    package var stderr: OutputSpool
    package var results: ResultSpool
    /// A line of ours about how it ended (timeout, lost VM, memory), to be shown after the program's own stderr; nil when there is
    /// nothing to say.
    package var note: String?
    /// Seconds on the clock.
    package var executionTime: Double
    /// Seconds of processor time, from the guest's accounting.
    package var cpuTime: Double
    /// The interpreter's variables are gone; the next call gets a new interpreter.
    package var stateLost: Bool
    /// How the VM became itself; nil when its guest never got that far.
    package var restore: RestoreRecord?
    /// Bytes that were not kept, over the output limit.
    package var stdoutDroppedBytes: Int
    package var stderrDroppedBytes: Int

    /// A result of code that exited; what is special about another end is set on it.
    package init(
        session: SessionID,
        vmID: String,
        vmStartedAt: Date,
        language: Language,
        createdAt: Date,
        outcome: ExecutionOutcome = .exited,
        exitCode: Int = 0,
        stdout: OutputSpool,
        stderr: OutputSpool,
        results: ResultSpool = ResultSpool(),
        note: String? = nil,
        executionTime: Double,
        restore: RestoreRecord? = nil
    ) {
        self.session = session
        self.vmID = vmID
        self.vmStartedAt = vmStartedAt
        self.language = language
        self.createdAt = createdAt
        self.outcome = outcome
        self.exitCode = exitCode
        signal = nil
        self.stdout = stdout
        self.stderr = stderr
        self.results = results
        self.note = note
        self.executionTime = executionTime
        cpuTime = 0
        self.restore = restore
        stateLost = false
        stdoutDroppedBytes = stdout.droppedBytes
        stderrDroppedBytes = stderr.droppedBytes
    }
}

/// What a new session is to be like.
package struct SessionOptions: Sendable {
    /// Seconds; nil takes the server's default.
    package var vmLifetimeSeconds: Int?
    package var memoryMB: Int?
    package var vcpuCount: Int?
    /// Given, the VM is spawned at once.
    package var environment: [String: String]?
    /// A JSON object's text.
    package var metadataJSON: String?

    package init(
        vmLifetimeSeconds: Int? = nil,
        memoryMB: Int? = nil,
        vcpuCount: Int? = nil,
        environment: [String: String]? = nil,
        metadataJSON: String? = nil
    ) {
        self.vmLifetimeSeconds = vmLifetimeSeconds
        self.memoryMB = memoryMB
        self.vcpuCount = vcpuCount
        self.environment = environment
        self.metadataJSON = metadataJSON
    }
}

/// A session's state at a moment.
package struct SessionStatus: Sendable {
    package enum VM: String, Sendable {
        /// The VM boots; it has an id and no result yet.
        case starting
        case active
        case killed
    }

    package var record: SessionRecord
    /// nil when no VM was ever assigned.
    package var vm: VM?
    /// Seconds since the VM's spawn, while it lives.
    package var uptime: Double?
    /// Seconds until the VM is killed; 0 when it is dead, nil when none was assigned.
    package var expiresIn: Double?

    package init(record: SessionRecord, vm: VM?, uptime: Double?, expiresIn: Double?) {
        self.record = record
        self.vm = vm
        self.uptime = uptime
        self.expiresIn = expiresIn
    }
}

/// Why the session service refused.
package enum SessionError: Error, Sendable, CustomStringConvertible {
    /// No such session, or another user's.
    case notFound(SessionID)
    /// The session has no living VM.
    case noVM(SessionID)
    /// A session's lifetime cannot be what was asked for; the reason is for the caller.
    case lifetime(String)
    /// Too much waits or runs; `retryAfter` is in seconds.
    case overloaded(reason: String, retryAfter: Int)
    /// The VM could not be started; the reason is for the operator's log and, in short, for the caller.
    case vmUnavailable(reason: String)
    /// The image lacks the language's interpreter.
    case noInterpreter(Language)
    case shuttingDown

    package var description: String {
        switch self {
        case .notFound(let id): "Session \(id) not found"
        case .noVM(let id): "Session \(id) has no running VM"
        case .lifetime(let reason): reason
        case .overloaded(let reason, _): reason
        case .vmUnavailable(let reason): "The microVM could not be started: \(reason)"
        case .noInterpreter(let language): "This server's image has no \(language.rawValue); the standard image does"
        case .shuttingDown: "The server is shutting down"
        }
    }
}
