// SPDX-License-Identifier: Apache-2.0

package import AgentClient
import AgentProtocol
package import Foundation
import Logging
import NIOCore
import NIOPosix
import SwiftletCore
import SwiftletMetrics
import Synchronization

/// One session's virtual machine: an identity, and the machine that it runs on.
///
/// Its life is ``run()``, which the engine's task group owns; everybody else watches it and may ``kill(reason:)`` it.
package final class MicroVM: VirtualMachine {
    private enum State {
        /// Waits for its machine, or that for its guest. May become `running`, `stopping` or `ended`.
        case starting
        /// The guest was told who it is; code may be sent. May become `stopping` or `ended`.
        case running(QEMUMachine)
        /// We want it dead; the first reason counts. Becomes `ended`.
        case stopping(VMEnd)
        /// Nothing of it is left. Terminal.
        case ended(VMEnd)
    }

    /// `vm-` and twelve characters: usable as a DNS label, never shaped like a UUID.
    package let id: String
    package let shape: VMShape
    package let startedAt: Date
    package let started: ContinuousClock.Instant

    let diskQuota: DiskQuota
    private let environment: [String: String]
    private let resources: EngineContext
    private let logger: Logger
    private let factory: MachinePool<QEMUMachineSource>
    private let onReady: @Sendable () -> Void
    private let state = Mutex(State.starting)
    private let restoreRecord = Mutex<VMRestore?>(nil)
    /// Fulfilled when it is to end before it has a machine.
    private let stopPromise: EventLoopPromise<Void>
    private let ready: EventLoopPromise<AgentConnection>
    private let endPromise: EventLoopPromise<VMEnd>

    /// - Parameters:
    ///   - diskQuota: what its guest may write to its disk.
    ///   - onReady: called once, when it no longer counts as starting.
    init(
        id: String,
        shape: VMShape,
        environment: [String: String],
        diskQuota: DiskQuota,
        resources: EngineContext,
        factory: MachinePool<QEMUMachineSource>,
        logger: Logger,
        onReady: @escaping @Sendable () -> Void
    ) {
        self.id = id
        self.shape = shape
        self.environment = environment
        self.diskQuota = diskQuota
        self.resources = resources
        self.factory = factory
        self.onReady = onReady
        startedAt = Date()
        started = .now
        var logger = logger
        logger[metadataKey: "vm.id"] = "\(id)"
        self.logger = logger
        let eventLoop = resources.eventLoopGroup.next()
        ready = eventLoop.makePromise()
        endPromise = eventLoop.makePromise()
        stopPromise = eventLoop.makePromise()
    }

    static func makeID() -> String {
        let alphabet = Array("abcdefghijkmnpqrstuvwxyz23456789")
        var generator = SystemRandomNumberGenerator()
        return "vm-" + String((0..<12).compactMap { _ in alphabet.randomElement(using: &generator) })
    }

    /// Why it ended; nil while it lives.
    package var end: VMEnd? {
        state.withLock { state in
            switch state {
            case .starting: nil
            case .running(let machine): machine.end
            case .stopping(let end), .ended(let end): end
            }
        }
    }

    package var isRunning: Bool {
        state.withLock { state in
            if case .running(let machine) = state { machine.end == nil } else { false }
        }
    }

    /// MiB that its machine holds alone; nil while it has none. Blocks for a moment.
    var heldMemory: Int? {
        let machine: QEMUMachine? = state.withLock { state in
            if case .running(let machine) = state { machine } else { nil }
        }
        return machine?.heldMemory
    }

    /// How it became itself; nil before its guest has confirmed it.
    package var restore: VMRestore? { restoreRecord.withLock { $0 } }

    package func agent(until deadline: ContinuousClock.Instant) async throws -> (any GuestAgent)? {
        let eventLoop = ready.futureResult.eventLoop
        let promise = eventLoop.makePromise(of: (any GuestAgent)?.self)
        let timer = eventLoop.scheduleTask(in: .until(deadline)) { promise.succeed(nil) }
        ready.futureResult.whenComplete { result in
            timer.cancel()
            switch result {
            case .success(let agent): promise.succeed(agent)
            case .failure(let error): promise.fail(error)
            }
        }
        return try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            promise.fail(CancellationError())
        }
    }

    /// Waits until nothing of the VM is left and says why.
    package func waitForEnd() async throws -> VMEnd {
        try await endPromise.futureResult.get()
    }

    /// Ends the VM, whatever it does. Returns at once; ``waitForEnd()`` tells when it is gone.
    package func kill(reason: String) {
        end(.killed(reason: reason))
    }

    private func end(_ end: VMEnd) {
        let machine: QEMUMachine? = state.withLock { state in
            switch state {
            case .starting:
                state = .stopping(end)
                return nil
            case .running(let machine):
                state = .stopping(end)
                return machine
            case .stopping, .ended:
                return nil
            }
        }
        machine?.kill(end)
        stopPromise.succeed()
    }

    /// Ends a VM whose life never began.
    func abandon() {
        finish(.killed(reason: "The server shut down"))
    }

    private func finish(_ end: VMEnd) {
        state.withLock { $0 = .ended(end) }
        ready.fail(MicroVMError.ended(end))
        endPromise.succeed(end)
        stopPromise.succeed()
    }

    // MARK: Life

    /// The VM's whole life: returns when nothing of its machine is left.
    func run() async {
        logger.info("VM starts", metadata: ["vm.shape": "\(shape)"])
        let end: VMEnd
        do {
            let (machine, origin) = try await take()
            onReady()
            end = try await withTaskCancellationHandler {
                adopt(machine, origin)
                return try await machine.waitForEnd()
            } onCancel: {
                kill(reason: "The server shut down")
                machine.kill(.killed(reason: "The server shut down"))
            }
        } catch {
            onReady()
            end = self.end ?? (error as? MicroVMError).map(Self.end) ?? .hypervisorExited("\(error)")
            ready.fail(error is CancellationError ? MicroVMError.ended(end) : error)
        }
        finish(self.end ?? end)
        logger.notice("VM ended", metadata: ["vm.end": "\(self.end ?? end)"])
    }

    private static func end(_ error: MicroVMError) -> VMEnd {
        if case .ended(let end) = error { end } else { .hypervisorExited(error.description) }
    }

    /// Its machine. Gives up when the VM is to end before there is one.
    private func take() async throws -> (QEMUMachine, MachineOrigin) {
        let stop = stopPromise.futureResult
        return try await withThrowingTaskGroup(of: (QEMUMachine, MachineOrigin)?.self) { group in
            group.addTask { [factory, shape] in try await factory.take(shape) }
            group.addTask {
                try await withTaskCancellationHandler {
                    try await stop.get()
                } onCancel: {
                    self.stopPromise.succeed()
                }
                return nil
            }
            var taken: (QEMUMachine, MachineOrigin)?
            while let result = try await group.next() {
                // A machine may have been handed over while we gave up; then its end is ours to see to.
                if let result { taken = result }
                group.cancelAll()
            }
            guard let taken else { throw CancellationError() }
            return taken
        }
    }

    /// Makes the machine this VM: tells the guest who it is. Code may follow at once, and runs when the guest has confirmed.
    private func adopt(_ machine: QEMUMachine, _ origin: MachineOrigin) {
        let isWanted = state.withLock { state in
            guard case .starting = state else { return false }
            state = .running(machine)
            return true
        }
        guard isWanted else { return machine.kill(end ?? .killed(reason: "It was not wanted any more")) }
        machine.limitDisk(to: diskQuota)
        if origin != .boot { machine.resume() }
        let request = Prepare.fresh(hostName: id, diskLimit: diskQuota.bytes, environment: environment)
        let limit = resources.bootTimeout
        let timer = machine.agent.eventLoop.scheduleTask(in: .nanoseconds(Int64(limit.seconds * 1e9))) {
            machine.kill(.killed(reason: "Its guest did not confirm that it is its own within \(Int(limit.seconds)) s"))
        }
        machine.agent.prepare(request).whenComplete { [self] result in
            timer.cancel()
            guard case .success(let prepared) = result else { return }
            let seconds = Date().timeIntervalSince(startedAt)
            let milliseconds = Int(seconds * 1000)
            resources.timings.create.observe(seconds, ["origin": origin.rawValue])
            restoreRecord.withLock {
                $0 = VMRestore(
                    generation: prepared.generation.hexadecimal,
                    origin: origin.rawValue,
                    template: machine.template?.name,
                    confirmed: prepared.confirmed.names,
                    milliseconds: milliseconds
                )
            }
            logger.notice("VM runs", metadata: ["vm.origin": "\(origin.rawValue)", "vm.ms": "\(milliseconds)"])
        }
        ready.succeed(machine.agent)
    }
}

extension Prepare {
    /// A guest's new identity, at this moment.
    static func fresh(hostName: String, diskLimit: UInt64, environment: [String: String] = [:]) -> Prepare {
        var generator = SystemRandomNumberGenerator()
        return Prepare(
            generation: (0..<Prepare.generationSize).map { _ in generator.next() },
            wallClock: UInt64(Date().timeIntervalSince1970 * 1e9),
            entropy: (0..<64).map { _ in generator.next() },
            machineID: String((0..<32).compactMap { _ in "0123456789abcdef".randomElement(using: &generator) }),
            hostName: hostName,
            diskLimit: diskLimit,
            environment: environment.sorted { $0.key < $1.key }.map { Variable(name: $0.key, value: $0.value) }
        )
    }
}
