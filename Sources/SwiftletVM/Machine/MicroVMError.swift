// SPDX-License-Identifier: Apache-2.0

/// Why a microVM could not be had or was lost.
package enum MicroVMError: Error, Equatable, Sendable, CustomStringConvertible {
    /// QEMU, a file or a descriptor was not to be had.
    case cannotStart(String)
    /// The node has no room for another VM now.
    case full(reason: String)
    /// The guest did not confirm what must be its own.
    case notPrepared(String)
    /// The VM is gone.
    case ended(VMEnd)

    package var description: String {
        switch self {
        case .cannotStart(let reason): "Cannot start: \(reason)"
        case .full(let reason): reason
        case .notPrepared(let what): "The guest did not confirm \(what)"
        case .ended(let end): end.description
        }
    }
}

/// Why a VM is no more.
package enum VMEnd: Equatable, Sendable, CustomStringConvertible {
    /// We ended it, for the reason given.
    case killed(reason: String)
    /// The guest's kernel panicked, with these words.
    case guestPanic(String)
    /// The guest rebooted or switched itself off.
    case guestReset
    /// The guest's agent gave up, with these words.
    case agentFailed(String)
    /// QEMU ended by itself, or somebody killed it.
    case hypervisorExited(String)
    /// QEMU made a system call that its jail forbids; its name, where this server may read the kernel's log.
    case forbiddenSystemCall(SystemCall?)
    /// What came from the guest cannot be trusted any further.
    case protocolViolation(String)

    package var description: String {
        switch self {
        case .killed(let reason): reason
        case .guestPanic(let words): "Its kernel panicked: \(words)"
        case .guestReset: "It rebooted or switched itself off"
        case .agentFailed(let words): "Its agent failed: \(words)"
        case .hypervisorExited(let how): "QEMU ended: \(how)"
        case .forbiddenSystemCall(let call?):
            "QEMU was killed for the system call \(call), which its jail forbids (signal 31)"
        case .forbiddenSystemCall(nil):
            "QEMU was killed for a system call that its jail forbids (signal 31); the kernel's log names it, which this server cannot read"
        case .protocolViolation(let what): "Its agent broke the protocol: \(what)"
        }
    }
}
