// SPDX-License-Identifier: Apache-2.0

import AgentClient
import Logging
import SwiftletCore
import SwiftletMetrics

/// Where a machine came from.
enum MachineOrigin: String, Sendable {
    /// Booted for the session that uses it.
    case boot
    /// Restored from a template for it.
    case template
    /// Restored before, and waiting since.
    case pool
}

/// What a ``MachinePool`` needs of a machine; ``QEMUMachine`` is the real one.
protocol PooledMachine: AnyObject, Sendable {
    var shape: VMShape { get }

    /// Why it ended; nil while it lives.
    var end: VMEnd? { get }

    /// Its whole life: returns when nothing of it exists any more. Cancellation kills it.
    func run() async

    /// Ends it, whatever it does. Returns at once.
    func kill(_ end: VMEnd)
}

/// Starts the machines of a ``MachinePool``; ``QEMUMachineSource`` is the real one.
protocol MachineSource<Machine>: Sendable {
    associatedtype Machine: PooledMachine

    /// Spawns a machine, which boots, or waits for its template's state. The caller must run it.
    func spawn(_ shape: VMShape, from template: LoadedTemplate?, isRefill: Bool) async throws -> Machine

    /// Waits until a booting guest's agent answers; one that takes too long is killed.
    func boot(_ machine: Machine) async throws

    /// Loads the template's state; the guest stays stopped.
    func restore(_ machine: Machine, isRefill: Bool) async throws

    /// Runs each kind of first call once in the guest, and stops it.
    func rehearse(_ machine: Machine) async throws
}

/// Starts QEMUs.
struct QEMUMachineSource: MachineSource {
    let resources: EngineContext
    let logger: Logger

    func spawn(_ shape: VMShape, from template: LoadedTemplate?, isRefill: Bool) async throws -> QEMUMachine {
        try await QEMUMachine.start(
            shape,
            memory: template,
            isBackground: isRefill,
            resources: resources,
            logger: logger
        )
    }

    func boot(_ machine: QEMUMachine) async throws {
        _ = try await machine.hello(within: resources.bootTimeout)
    }

    func restore(_ machine: QEMUMachine, isRefill: Bool) async throws {
        try await machine.within(resources.bootTimeout, "It was not restored") { try await machine.restore() }
        let labels = ["for": isRefill ? "pool" : "session"]
        resources.timings.restore.observe((ContinuousClock.now - machine.begun).seconds, labels)
    }

    func rehearse(_ machine: QEMUMachine) async throws {
        try await machine.within(resources.bootTimeout, "Its rehearsal did not end") {
            machine.resume()
            try await machine.agent.rehearse(.fresh(hostName: "rehearsal", diskLimit: resources.diskLimit))
            try await machine.pause()
        }
    }
}

extension QEMUMachine: PooledMachine {}
