// SPDX-License-Identifier: Apache-2.0

package import SwiftletAccounts
package import SwiftletCore

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
    /// The owner's plan refused.
    case admission(AdmissionError)
    /// The VM could not be started; the reason is for the operator's log and, in short, for the caller.
    case vmUnavailable(reason: String)
    /// The image lacks the language's interpreter.
    case noInterpreter(Language)
    /// No such execution, or another user's.
    case executionNotFound(String)
    /// The execution's output was thrown away at the end of its time.
    case outputExpired(ExecutionID)
    /// The idempotency key came before, with another request.
    case idempotencyMismatch
    case shuttingDown

    package var description: String {
        switch self {
        case .notFound(let id): "Session \(id) not found"
        case .noVM(let id): "Session \(id) has no running VM"
        case .lifetime(let reason), .overloaded(let reason, _): reason
        case .admission(let error): error.description
        case .vmUnavailable(let reason): "The microVM could not be started: \(reason)"
        case .noInterpreter(let language): "This server's image has no \(language.rawValue); the standard image does"
        case .executionNotFound(let id): "Execution \(id) not found"
        case .outputExpired(let id): "The output of execution \(id) is not kept any more"
        case .idempotencyMismatch: "This Idempotency-Key came before with another request; use a new key"
        case .shuttingDown: "The server is shutting down"
        }
    }
}
