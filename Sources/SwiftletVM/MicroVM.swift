// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
package import Foundation
import Logging
package import NIOCore
import NIOPosix
import Synchronization

/// One virtual machine: a QEMU process, its disk, and the agent inside.
///
/// Its life is ``run()``, which the engine's task group owns; everybody else watches it and may ``kill(reason:)`` it.
package final class MicroVM: Sendable {
    private enum State {
        /// Not spawned yet, or booting. May become `running` or `ended`.
        case starting(ChildProcess?)
        /// The agent has confirmed; code may be run. May become `ended`.
        case running(ChildProcess)
        /// We want it dead; the first reason counts. Becomes `ended`.
        case stopping(VMEnd)
        /// Nothing of it is left. Terminal.
        case ended(VMEnd)
    }

    /// `vm-` and twelve characters: usable as a DNS label, never shaped like a UUID.
    package let id: String
    package let shape: VMShape
    package let startedAt: Date

    private let environment: [String: String]
    private let resources: VMResources
    private let logger: Logger
    private let state = Mutex(State.starting(nil))
    private let ready: EventLoopPromise<AgentConnection>
    private let endPromise: EventLoopPromise<VMEnd>

    init(shape: VMShape, environment: [String: String], resources: VMResources, logger: Logger) {
        id = Self.makeID()
        self.shape = shape
        self.environment = environment
        self.resources = resources
        startedAt = Date()
        var logger = logger
        logger[metadataKey: "vm.id"] = "\(id)"
        self.logger = logger
        let eventLoop = resources.eventLoopGroup.next()
        ready = eventLoop.makePromise()
        endPromise = eventLoop.makePromise()
    }

    private static func makeID() -> String {
        let alphabet = Array("abcdefghijkmnpqrstuvwxyz23456789")
        var generator = SystemRandomNumberGenerator()
        return "vm-" + String((0..<12).compactMap { _ in alphabet.randomElement(using: &generator) })
    }

    /// Why it ended; nil while it lives.
    package var end: VMEnd? {
        state.withLock { state in
            switch state {
            case .starting, .running: nil
            case .stopping(let end), .ended(let end): end
            }
        }
    }

    package var isRunning: Bool {
        state.withLock { state in
            if case .running = state { true } else { false }
        }
    }

    /// QEMU's process id, while it lives.
    package var processID: Int32? {
        state.withLock { state in
            switch state {
            case .starting(let process): process?.pid
            case .running(let process): process.pid
            case .stopping, .ended: nil
            }
        }
    }

    /// Waits until code can be run.
    ///
    /// - Returns: the agent, or nil when the time is over first.
    /// - Throws: `MicroVMError` when the VM could not be started or has ended.
    package func agent(within limit: TimeAmount) async throws -> AgentConnection? {
        let eventLoop = ready.futureResult.eventLoop
        let promise = eventLoop.makePromise(of: AgentConnection?.self)
        let timer = eventLoop.scheduleTask(in: limit) { promise.succeed(nil) }
        ready.futureResult.whenComplete { result in
            timer.cancel()
            switch result {
            case .success(let agent): promise.succeed(agent)
            case .failure(let error): promise.fail(error)
            }
        }
        return try await promise.futureResult.get()
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
        let process: ChildProcess? = state.withLock { state in
            switch state {
            case .starting(let process):
                state = .stopping(end)
                return process
            case .running(let process):
                state = .stopping(end)
                return process
            case .stopping, .ended:
                return nil
            }
        }
        process?.signal(SIGKILL)
    }

    /// Ends a VM whose life never began.
    func abandon() {
        finish(.killed(reason: "The server shut down"))
    }

    private func finish(_ end: VMEnd) {
        state.withLock { $0 = .ended(end) }
        ready.fail(MicroVMError.ended(end))
        endPromise.succeed(end)
    }

    // MARK: Life

    /// The VM's whole life: returns when QEMU is reaped and the disk removed.
    func run() async {
        logger.notice("VM starts", metadata: ["vm.shape": "\(shape)"])
        let end: VMEnd
        let directory = VMDirectory(parent: resources.directory, id: id)
        do {
            try await resources.blocking.runIfActive { [resources] in
                try directory.create(emptyDisk: resources.emptyDisk)
            }
            end = try await live(in: directory)
        } catch let error as MicroVMError {
            if case .ended(let known) = error { end = known } else { end = .hypervisorExited(error.description) }
            ready.fail(error)
        } catch {
            end = .hypervisorExited("\(error)")
            ready.fail(MicroVMError.cannotStart("\(error)"))
        }
        do {
            try await resources.blocking.runUncancelled { try directory.remove() }
        } catch {
            logger.error("A VM's directory could not be removed", metadata: ["error": "\(error)"])
        }
        finish(end)
        logger.notice("VM ended", metadata: ["vm.end": "\(end)"])
    }

    private func live(in directory: VMDirectory) async throws -> VMEnd {
        let qemu = try await QEMUProcess.start(
            resources: resources,
            shape: shape,
            directory: directory
        )
        let agent = qemu.agent
        return try await withTaskCancellationHandler {
            let wanted = state.withLock { state in
                if case .starting = state {
                    state = .starting(qemu.process)
                    return true
                }
                return false
            }
            if !wanted { qemu.process.signal(SIGKILL) }
            agent.onViolation { [self] error in end(.protocolViolation(error.description)) }
            return try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { await self.boot(qemu) }
                let observed = try await qemu.waitForEnd()
                let end = self.end ?? observed
                agent.fail(.ended(end))
                return end
            }
        } onCancel: {
            kill(reason: "The server shut down")
        }
    }

    /// Greets the guest and makes it its own; a guest that does not answer in time is killed.
    private func boot(_ qemu: QEMUProcess) async {
        let limit = resources.bootTimeout
        let timer = qemu.agent.eventLoop.scheduleTask(in: .nanoseconds(Int64(limit.seconds * 1e9))) { [self] in
            end(.killed(reason: "It did not boot within \(Int(limit.seconds)) s"))
        }
        defer { timer.cancel() }
        do {
            let hello = try await qemu.agent.hello()
            logger.debug("Agent greeted", metadata: ["guest.kernel": "\(hello.kernelRelease)"])
            let request = makePrepare()
            let prepared = try await qemu.agent.prepare(request)
            guard prepared.generation == request.generation, prepared.confirmed == .all else {
                throw MicroVMError.notPrepared(
                    "confirmed \(prepared.confirmed.rawValue) of \(Prepared.Confirmation.all.rawValue)"
                )
            }
            let running = state.withLock { state in
                guard case .starting = state else { return false }
                state = .running(qemu.process)
                return true
            }
            guard running else { return }
            ready.succeed(qemu.agent)
            logger.notice("VM runs", metadata: ["vm.boot_ms": "\(Int(Date().timeIntervalSince(startedAt) * 1000))"])
        } catch {
            let end = self.end
            if let end, case .killed = end {
                let console = await qemu.consoleTail()
                logger.warning("VM did not boot", metadata: ["vm.end": "\(end)", "console": "\(console)"])
            }
            ready.fail(end.map { MicroVMError.ended($0) } ?? error)
            self.end(.killed(reason: "It did not start: \(error)"))
        }
    }

    private func makePrepare() -> Prepare {
        var generator = SystemRandomNumberGenerator()
        let now = Date().timeIntervalSince1970
        return Prepare(
            generation: (0..<Prepare.generationSize).map { _ in generator.next() },
            wallClock: UInt64(now * 1e9),
            entropy: (0..<64).map { _ in generator.next() },
            machineID: String((0..<32).compactMap { _ in "0123456789abcdef".randomElement(using: &generator) }),
            hostName: id,
            environment: environment.sorted { $0.key < $1.key }.map { Prepare.Variable(name: $0.key, value: $0.value) }
        )
    }
}
