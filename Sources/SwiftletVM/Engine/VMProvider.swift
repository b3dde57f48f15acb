// SPDX-License-Identifier: Apache-2.0

package import AgentClient
package import Foundation
import SwiftletCore

/// Makes virtual machines and owns them; ``MicroVMEngine`` is the real one.
package protocol VMProvider: AnyObject, Sendable {
    /// Starts a VM and returns at once; `VirtualMachine.agent(until:)` tells when it runs.
    ///
    /// - Parameter diskLimit: bytes that it may write to its disk; the provider's own limit counts if it is lower, or alone.
    /// - Throws: `MicroVMError.full` when the node has no room for it, `cannotStart` when the provider is ending.
    func spawn(
        _ shape: VMShape,
        environment: [String: String],
        diskLimit: UInt64?
    ) throws -> any VirtualMachine

    /// Owns the VMs until it is cancelled; then kills them all and returns when they are gone.
    func run() async

    /// Counts for a monitoring system.
    var numbers: EngineNumbers { get async }
}

/// One session's virtual machine; ``MicroVM`` is the real one.
package protocol VirtualMachine: AnyObject, Sendable {
    /// `vm-` and twelve characters.
    var id: String { get }

    /// When it was spawned, on the wall clock: for records and answers.
    var startedAt: Date { get }

    /// When it was spawned, on the monotonic clock: its lifetime is measured from here.
    var started: ContinuousClock.Instant { get }

    /// Why it ended; nil while it lives.
    var end: VMEnd? { get }

    /// Whether code can be sent to it.
    var isRunning: Bool { get }

    /// How it became itself; nil before its guest has confirmed it.
    var restore: VMRestore? { get }

    /// Waits until code can be sent.
    ///
    /// - Returns: the agent, or nil when the deadline passes first.
    /// - Throws: `MicroVMError` when the VM could not be started or has ended; `CancellationError` when the task is cancelled.
    func agent(until deadline: ContinuousClock.Instant) async throws -> (any GuestAgent)?

    /// Waits until nothing of the VM is left and tells why it ended.
    func waitForEnd() async throws -> VMEnd

    /// Ends the VM, whatever it does. Returns at once; ``waitForEnd()`` tells when it is gone.
    func kill(reason: String)
}

/// What made a VM itself and no other.
package struct VMRestore: Sendable {
    /// Names this life of the guest, in hexadecimal.
    package let generation: String
    /// Where the machine came from: `boot`, `template` or `pool`.
    package let origin: String
    /// The template's name; nil for a guest that was booted.
    package let template: String?
    /// What the guest confirmed before any code ran; see `Prepared.Confirmation`.
    package let confirmed: [String]
    /// Milliseconds from the request for a VM until code could be sent to it.
    package let milliseconds: Int

    package init(generation: String, origin: String, template: String?, confirmed: [String], milliseconds: Int) {
        self.generation = generation
        self.origin = origin
        self.template = template
        self.confirmed = confirmed
        self.milliseconds = milliseconds
    }
}

/// What a provider counts.
package struct EngineNumbers: Sendable {
    /// What the node's VMs take, and may take.
    package var capacity: HostCapacity
    /// Machines that wait, by shape.
    package var idle: [VMShape: Int]
    /// Machines given to VMs so far, by origin.
    package var taken: [String: Int]
    /// VMs refused so far because the node was full.
    package var refused: Int
    package var timings: VMTimings

    package init(
        capacity: HostCapacity,
        idle: [VMShape: Int] = [:],
        taken: [String: Int] = [:],
        refused: Int = 0,
        timings: VMTimings = VMTimings()
    ) {
        self.capacity = capacity
        self.idle = idle
        self.taken = taken
        self.refused = refused
        self.timings = timings
    }
}
