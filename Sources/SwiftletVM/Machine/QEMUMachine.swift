// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import Foundation
import Glibc
import Logging
import NIOCore
import NIOPosix
import SwiftletCore
import Synchronization

/// A QEMU with a guest in it: what a microVM runs on, and what a pool keeps.
///
/// Its life is ``run()``, which the factory's task group owns; everybody else watches it and may ``kill(_:)`` it.
final class QEMUMachine: Sendable {
    private enum State {
        /// May become `ending` or `ended`.
        case living
        /// We want it dead; the first reason counts. Becomes `ended`.
        case ending(VMEnd)
        /// Nothing of it is left. Terminal.
        case ended(VMEnd)
    }

    let shape: VMShape
    let agent: AgentConnection
    let template: Template?
    /// When its start was asked for.
    let begun: ContinuousClock.Instant
    private let qemu: QEMUProcess
    private let directory: VMDirectory?
    private let resources: EngineContext
    private let logger: Logger
    private let state = Mutex(State.living)
    private let endPromise: EventLoopPromise<VMEnd>

    private init(_ qemu: QEMUProcess, launch: QEMULaunch, resources: EngineContext, logger: Logger) {
        shape = launch.shape
        agent = qemu.agent
        template = launch.template
        begun = launch.begun
        directory = launch.keepsFiles ? nil : launch.directory
        self.qemu = qemu
        self.resources = resources
        self.logger = logger
        endPromise = resources.eventLoopGroup.next().makePromise()
    }

    /// Starts a machine with a disk of its own. Its owner must call ``run()``.
    ///
    /// - Throws: `MicroVMError.cannotStart`; nothing is left then.
    static func start(
        _ shape: VMShape,
        memory: LoadedTemplate?,
        isBackground: Bool,
        resources: EngineContext,
        logger: Logger
    ) async throws -> QEMUMachine {
        let id = "machine-" + UUID().uuidString.prefix(13).lowercased()
        let launch = QEMULaunch(
            shape: shape,
            start: memory == nil ? .boot : .restore,
            directory: VMDirectory(parent: resources.directory, id: id),
            memory: memory?.memory,
            template: memory?.template,
            isBackground: isBackground
        )
        return try await start(launch, resources: resources, logger: logger)
    }

    static func start(_ launch: QEMULaunch, resources: EngineContext, logger: Logger) async throws -> QEMUMachine {
        let directory = launch.directory
        do {
            try await resources.blocking.runIfActive { try directory.create(emptyDisk: resources.emptyDisk) }
            let qemu = try await QEMUProcess.start(launch, resources: resources)
            let machine = QEMUMachine(qemu, launch: launch, resources: resources, logger: logger)
            machine.agent.onViolation { [weak machine] error in
                machine?.kill(.protocolViolation(error.description))
            }
            return machine
        } catch {
            if !launch.keepsFiles { try await resources.blocking.runUncancelled { try directory.remove() } }
            throw error
        }
    }

    /// Why it ended; nil while it lives.
    var end: VMEnd? {
        state.withLock { state in
            switch state {
            case .living: nil
            case .ending(let end), .ended(let end): end
            }
        }
    }

    /// MiB that its QEMU holds alone; what it shares with other clones of its template does not count. Blocks for a moment.
    var heldMemory: Int? { qemu.heldMemory }

    /// Waits until nothing of it is left.
    func waitForEnd() async throws -> VMEnd {
        try await endPromise.futureResult.get()
    }

    /// Ends it, whatever it does. Returns at once.
    func kill(_ end: VMEnd) {
        state.withLock { state in
            guard case .living = state else { return }
            state = .ending(end)
            qemu.process.killInnermost()
        }
    }

    /// Its whole life: returns when QEMU is reaped and its files are removed. Cancellation kills it.
    func run() async {
        let observed: VMEnd
        do {
            observed = try await withTaskCancellationHandler {
                try await qemu.waitForEnd()
            } onCancel: {
                kill(.killed(reason: "The server shut down"))
            }
        } catch {
            observed = .hypervisorExited("\(error)")
        }
        // Known before anybody is told: who hears of the loss may ask at once.
        let end = state.withLock { state in
            switch state {
            case .living:
                state = .ending(observed)
                return observed
            case .ending(let end), .ended(let end):
                return end
            }
        }
        agent.fail(MicroVMError.ended(end))
        let directory = directory
        do {
            try await resources.blocking.runUncancelled { try directory?.remove() }
        } catch {
            logger.error("A VM's directory could not be removed", metadata: ["error": "\(error)"])
        }
        state.withLock { $0 = .ended(end) }
        endPromise.succeed(end)
    }

    // MARK: Control

    /// Waits for the agent's greeting; a guest that does not come up in time is killed.
    func hello(within limit: Duration) async throws -> Hello {
        try await within(limit, "It did not boot") { try await agent.hello() }
    }

    /// Runs something that must end in time, else the machine does.
    ///
    /// - Parameter what: what has not happened then, in words.
    func within<Result>(_ limit: Duration, _ what: String, _ body: () async throws -> Result) async throws -> Result {
        let timer = agent.eventLoop.scheduleTask(in: .nanoseconds(Int64(limit.seconds * 1e9))) { [self] in
            kill(.killed(reason: "\(what) within \(Int(limit.seconds)) s"))
        }
        defer { timer.cancel() }
        return try await body()
    }

    /// Loads the template's device state; the guest stays stopped.
    func restore() async throws {
        do {
            qemu.locate()
            try await qemu.qmp.migrate("migrate-incoming", uri: "fd:\(QEMUCommand.Descriptor.state.rawValue)")
        } catch let error as QMPError {
            throw MicroVMError.cannotStart("The template's state was not accepted: \(error)")
        }
    }

    /// Stops the guest's processors.
    func pause() async throws {
        try await qemu.qmp.execute("stop")
        qemu.becomeForeground()
    }

    /// Lets the guest run. What goes wrong shows as an agent that does not answer.
    func resume() {
        qemu.qmp.send("cont")
    }

    /// Writes the devices' state to a descriptor that QEMU was given as "state", and ends QEMU.
    func freeze() async throws {
        try await qemu.qmp.execute("stop")
        try await qemu.qmp.migrate("migrate", uri: "fd:state")
        qemu.qmp.send("quit")
    }

    /// Runs a QMP command, for a probe.
    func control(_ command: String, arguments: String) async throws {
        try await qemu.qmp.execute(command, arguments: arguments)
    }

    /// Looks for QEMU's process id; nil when it is gone.
    @discardableResult
    func locate() -> Int32? { qemu.locate() }

    /// Holds it to a VM's quota, or ends it.
    func limitDisk(to quota: DiskQuota) {
        if !qemu.limitDisk(to: quota) { kill(.killed(reason: "Its disk could not be limited")) }
    }

    /// The last words of the guest's console.
    func consoleTail() async -> String { await qemu.consoleTail() }
}
