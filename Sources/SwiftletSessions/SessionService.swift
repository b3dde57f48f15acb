// SPDX-License-Identifier: Apache-2.0

import Foundation
package import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
package import SwiftletStore
package import SwiftletVM

/// The sessions of this node: who owns them, which VM each has, and what runs in it.
package actor SessionService: SessionAPI, Service {
    package struct Configuration: Sendable {
        /// Seconds that a VM lives when the session does not say.
        package var defaultLifetimeSeconds = 300
        package var defaultMemoryMB = 512
        package var defaultVCPUCount = 2
        /// Bytes kept of each of stdout and stderr.
        package var outputLimit = 256 << 20
        /// Where output that does not fit into memory is kept while it is needed.
        package var spoolDirectory: String
        /// Calls of one session that may run or wait at once.
        package var maximumCallsPerSession = 128
        /// Files of one session that may be moved at once.
        package var maximumTransfersPerSession = 16

        package init(spoolDirectory: String) {
            self.spoolDirectory = spoolDirectory
        }
    }

    typealias Job = @Sendable () async -> Void

    let configuration: Configuration
    let store: SessionStore
    nonisolated let logger: Logger
    private let engine: MicroVMEngine
    private var runtimes: [SessionID: SessionRuntime] = [:]
    private let jobs: AsyncStream<Job>
    private let submitted: AsyncStream<Job>.Continuation
    private var accepting = true

    package init(configuration: Configuration, store: SessionStore, engine: MicroVMEngine, logger: Logger) {
        self.configuration = configuration
        self.store = store
        self.engine = engine
        self.logger = logger
        (jobs, submitted) = AsyncStream.makeStream()
    }

    /// Owns the VMs and all that runs in them. At a graceful shutdown it kills the VMs and returns when they are gone.
    package func run() async throws {
        try await store.endAllVMs(at: Date(), reason: "The server restarted")
        await withDiscardingTaskGroup { group in
            group.addTask { [engine] in
                await cancelWhenGracefulShutdown { await engine.run() }
            }
            group.addTask { [self] in
                // Jobs end by themselves when their VMs are gone; the stream ends when no more may come.
                await withDiscardingTaskGroup { children in
                    for await job in jobs { children.addTask { await job() } }
                }
            }
            // Cancellation ends the wait just as well.
            try? await gracefulShutdown()
            accepting = false
            submitted.finish()
        }
    }

    // MARK: SessionAPI

    package func createSession(owner: UserID, options: SessionOptions) async throws -> SessionRecord {
        guard accepting else { throw SessionError.shuttingDown }
        var record = SessionRecord(
            id: .random(),
            owner: owner,
            createdAt: Date(),
            vmLifetimeSeconds: options.vmLifetimeSeconds ?? configuration.defaultLifetimeSeconds,
            memoryMB: options.memoryMB ?? configuration.defaultMemoryMB,
            vcpuCount: options.vcpuCount ?? configuration.defaultVCPUCount,
            environment: options.environment ?? [:],
            metadataJSON: options.metadataJSON ?? "{}"
        )
        try await store.insert(record)
        if options.environment != nil {
            let runtime = try await enter(record)
            do {
                record.vm = sessionVM(of: try await lease(runtime), record: record)
                await leave(runtime)
            } catch {
                await leave(runtime)
                throw error
            }
        }
        return record
    }

    package func status(of id: SessionID, owner: UserID) async throws -> SessionStatus {
        guard var record = try await store.session(id), record.owner == owner else { throw SessionError.notFound(id) }
        if let vm = await runtimes[id]?.currentVM, vm.end == nil {
            let assigned = sessionVM(of: vm, record: record)
            record.vm = assigned
            return SessionStatus(
                record: record,
                vm: vm.isRunning ? .active : .starting,
                uptime: max(0, Date().timeIntervalSince(vm.startedAt)),
                expiresIn: max(0, assigned.expiresAt.timeIntervalSinceNow)
            )
        }
        guard record.vm != nil else { return SessionStatus(record: record, vm: nil, uptime: nil, expiresIn: nil) }
        return SessionStatus(record: record, vm: .killed, uptime: nil, expiresIn: 0)
    }

    package func kill(_ id: SessionID, owner: UserID) async throws -> String {
        _ = try await record(id, owner: owner)
        guard let vm = await runtimes[id]?.currentVM, vm.end == nil else { throw SessionError.noVM(id) }
        vm.kill(reason: "It was killed by request")
        let end = try await vm.waitForEnd()
        try await store.endVM(session: id, vmID: vm.id, at: Date(), reason: end.description)
        return vm.id
    }

    package func execute(_ request: ExecutionRequest) async throws -> ExecutionResult {
        guard accepting else { throw SessionError.shuttingDown }
        let record =
            if let id = request.session {
                try await self.record(id, owner: request.owner)
            } else {
                try await createSession(owner: request.owner, options: SessionOptions())
            }
        let runtime = try await enter(record)
        // The execution belongs to the service, not to the caller: who hangs up does not stop it.
        let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: ExecutionResult.self)
        let execution = Execution(request: request, record: record, runtime: runtime, service: self)
        let accepted = submit { [self] in
            await execution.run(answering: promise)
            await leave(runtime)
        }
        if !accepted {
            await leave(runtime)
            promise.fail(SessionError.shuttingDown)
        }
        return try await promise.futureResult.get()
    }

    /// What the engine counts.
    func engineNumbers() async -> MicroVMEngine.Numbers {
        await engine.numbers
    }

    // MARK: VMs

    /// The session's VM, a new one if none lives, whose end is then watched for.
    func lease(_ runtime: SessionRuntime) async throws -> MicroVM {
        do {
            return try await runtime.lease { vm in
                submit { [self] in await watch(vm, of: runtime) }
            }
        } catch MicroVMError.full(let reason) {
            throw SessionError.overloaded(reason: reason, retryAfter: 5)
        } catch let error as MicroVMError {
            throw SessionError.vmUnavailable(reason: error.description)
        }
    }

    /// Kills the VM at the end of its lifetime, and writes down its beginning and its end.
    private func watch(_ vm: MicroVM, of runtime: SessionRuntime) async {
        let record = runtime.record
        let assigned = sessionVM(of: vm, record: record)
        let left = TimeAmount.nanoseconds(Int64(max(0, assigned.expiresAt.timeIntervalSinceNow) * 1e9))
        let timer = MultiThreadedEventLoopGroup.singleton.next().scheduleTask(in: left) {
            vm.kill(reason: "Its lifetime of \(record.vmLifetimeSeconds) s ended")
        }
        do {
            try await store.assign(vm: assigned, to: record.id)
        } catch {
            logger.error("A VM could not be written down", metadata: ["vm.id": "\(vm.id)", "error": "\(error)"])
            vm.kill(reason: "The server could not write it down")
        }
        do {
            let end = try await vm.waitForEnd()
            timer.cancel()
            try await store.endVM(session: record.id, vmID: vm.id, at: Date(), reason: end.description)
        } catch {
            logger.error("A VM's end could not be written down", metadata: ["vm.id": "\(vm.id)", "error": "\(error)"])
        }
        await forgetIfIdle(runtime)
    }

    /// Hands a task to `run()`, which owns it; false when the service is ending.
    @discardableResult
    nonisolated func submit(_ job: @escaping Job) -> Bool {
        if case .enqueued = submitted.yield(job) { true } else { false }
    }

    private func sessionVM(of vm: MicroVM, record: SessionRecord) -> SessionVM {
        SessionVM(
            id: vm.id,
            startedAt: vm.startedAt,
            expiresAt: vm.startedAt.addingTimeInterval(Double(record.vmLifetimeSeconds))
        )
    }

    func record(_ id: SessionID, owner: UserID) async throws -> SessionRecord {
        // A session's owner and shape never change, so that a warm call needs no database.
        let cached = runtimes[id]?.record
        guard let record = if let cached { cached } else { try await store.session(id) }, record.owner == owner else {
            throw SessionError.notFound(id)
        }
        return record
    }

    /// Takes part in a session; every success needs a `leave(_:)`.
    func enter(_ record: SessionRecord) async throws -> SessionRuntime {
        let limit = configuration.maximumCallsPerSession
        while true {
            let runtime = runtimes[record.id] ?? SessionRuntime(record: record, engine: engine)
            runtimes[record.id] = runtime
            switch await runtime.enter(limit: limit) {
            case .entered:
                return runtime
            case .full:
                let reason = "Session \(record.id) has \(limit) calls already; wait for some to end"
                throw SessionError.overloaded(reason: reason, retryAfter: 1)
            case .retired:
                if runtimes[record.id] === runtime { runtimes[record.id] = nil }
            }
        }
    }

    func leave(_ runtime: SessionRuntime) async {
        await runtime.leave()
        await forgetIfIdle(runtime)
    }

    private func forgetIfIdle(_ runtime: SessionRuntime) async {
        guard await runtime.retireIfIdle(), runtimes[runtime.record.id] === runtime else { return }
        runtimes[runtime.record.id] = nil
    }
}
