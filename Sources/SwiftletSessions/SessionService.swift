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
        /// Days for which ended VMs and unused sessions are remembered.
        package var retentionDays = 90
        /// Calls of one session that may run or wait at once.
        package var maximumCallsPerSession = 128
        /// Files of one session that may be moved at once.
        package var maximumTransfersPerSession = 16

        package init() {}
    }

    typealias Job = @Sendable () async -> Void

    let configuration: Configuration
    let store: SessionStore
    nonisolated let logger: Logger
    /// Holds users to their plans.
    nonisolated let admission: SessionAdmission
    nonisolated let audit: AuditLog
    private let engine: MicroVMEngine
    var runtimes: [SessionID: SessionRuntime] = [:]
    private let jobs: AsyncStream<Job>
    private let submitted: AsyncStream<Job>.Continuation
    private var accepting = true

    package init(
        configuration: Configuration,
        store: SessionStore,
        admission: SessionAdmission,
        audit: AuditLog,
        engine: MicroVMEngine,
        logger: Logger
    ) {
        self.admission = admission
        self.audit = audit
        self.configuration = configuration
        self.store = store
        self.engine = engine
        self.logger = logger
        (jobs, submitted) = AsyncStream.makeStream()
    }

    /// Owns the VMs and all that runs in them. At a graceful shutdown it kills the VMs and returns when they are gone.
    package func run() async throws {
        try await endForgottenVMs()
        await withDiscardingTaskGroup { group in
            group.addTask { [engine] in
                await cancelWhenGracefulShutdown { await engine.run() }
            }
            group.addTask { [self] in await cancelWhenGracefulShutdown { await self.purgeRegularly() } }
            group.addTask { [self] in
                // Jobs end by themselves when their VMs are gone; the stream ends when no more may come.
                await withDiscardingTaskGroup { children in
                    for await job in jobs { children.addTask { await job() } }
                }
            }
            // Cancellation ends the wait just as well.
            try? await gracefulShutdown()
            stopAccepting()
            submitted.finish()
        }
    }

    // MARK: SessionAPI

    package func createSession(owner: UserID, options: SessionOptions) async throws -> SessionRecord {
        guard accepting else { throw SessionError.shuttingDown }
        let plan = try await admission.plan(of: owner)
        try admission.check(options, plan: plan)
        // What the server gives to those who do not say is no more than the plan has.
        func standard(_ value: Int, _ limit: Int?) -> Int { min(value, limit ?? value) }
        var record = SessionRecord(
            id: .random(),
            owner: owner,
            createdAt: Date(),
            vmLifetimeSeconds: options.vmLifetimeSeconds
                ?? standard(configuration.defaultLifetimeSeconds, plan.vmLifetimeSeconds),
            memoryMB: options.memoryMB ?? standard(configuration.defaultMemoryMB, plan.memoryMB),
            vcpuCount: options.vcpuCount ?? standard(configuration.defaultVCPUCount, plan.vcpuCount),
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
                await discard(record.id)
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
        guard let runtime = runtimes[id], let vm = await runtime.currentVM, vm.end == nil else {
            throw SessionError.noVM(id)
        }
        vm.kill(reason: "It was killed by request")
        let end = try await vm.waitForEnd()
        await runtime.releaseEnded(vm)
        let origin = vm.restore?.origin
        try await store.endVM(session: id, vmID: vm.id, at: Date(), reason: end.description, origin: origin)
        return vm.id
    }

    // MARK: Executions

    /// Takes part in the session of a request, which is made if it names none; every success needs a `leave(_:)`.
    func enter(_ request: ExecutionRequest) async throws -> (SessionRecord, SessionRuntime) {
        guard accepting else { throw SessionError.shuttingDown }
        if let id = request.session {
            let record = try await record(id, owner: request.owner)
            return (record, try await enter(record))
        }
        let record = try await createSession(owner: request.owner, options: SessionOptions())
        auditSession(.sessionCreated, by: .user(request.owner), record, because: "An execution needed one")
        return (record, try await enter(record))
    }

    /// Forgets a session that was made for a request which was then refused: nobody will hear of it.
    func discard(_ id: SessionID) async {
        do {
            _ = try await store.delete(id)
        } catch {
            Logger.current.error(
                "A session could not be forgotten",
                metadata: ["session.id": "\(id)", "error": "\(error)"]
            )
        }
    }

    /// Ends the caller's part in a session.
    func leave(_ runtime: SessionRuntime) async {
        await runtime.leave()
        await forgetIfIdle(runtime)
    }

    /// New sessions and executions are refused from now on.
    func stopAccepting() {
        accepting = false
    }

    /// What the engine counts.
    func engineNumbers() async -> MicroVMEngine.Numbers {
        await engine.numbers
    }

    // MARK: VMs

    /// The session's VM, a new one if none lives, whose end is then watched for.
    func lease(_ runtime: SessionRuntime) async throws -> MicroVM {
        do {
            // What the VM does later is still a consequence of this request.
            return try await withLogger(mergingMetadata: Self.metadata(of: runtime.record)) { logger in
                try await runtime.lease(admission: admission) { vm, place in
                    submit { [self] in
                        await withLogger(logger) { _ in await watch(vm, of: runtime, place: place) }
                    }
                }
            }
        } catch MicroVMError.full(let reason) {
            throw SessionError.overloaded(reason: reason, retryAfter: 5)
        } catch let error as MicroVMError {
            throw SessionError.vmUnavailable(reason: error.description)
        }
    }

    /// Kills the VM at the end of its lifetime, and writes down its beginning and its end.
    private func watch(_ vm: MicroVM, of runtime: SessionRuntime, place: VMReservation) async {
        let session = runtime.record.id
        let timer = LifetimeTimer {
            vm.startedAt.addingTimeInterval(Double(runtime.record.vmLifetimeSeconds))
        } onDue: {
            vm.kill(reason: "Its lifetime of \(runtime.record.vmLifetimeSeconds) s ended")
        }
        do {
            // The record may have been changed since it was read.
            if let record = try await store.assign(vm: sessionVM(of: vm, record: runtime.record), to: session) {
                runtime.adopt(record)
                auditStart(of: vm, record: record)
            } else {
                vm.kill(reason: "Its session was deleted")
            }
        } catch {
            Logger.current.error(
                "A VM could not be written down",
                metadata: ["vm.id": "\(vm.id)", "error": "\(error)"]
            )
            vm.kill(reason: "The server could not write it down")
        }
        do {
            let end = try await vm.waitForEnd()
            timer.cancel()
            place.release()
            auditEnd(of: vm, record: runtime.record, reason: end.description)
            let origin = vm.restore?.origin
            try await store.endVM(session: session, vmID: vm.id, at: Date(), reason: end.description, origin: origin)
        } catch {
            Logger.current.error(
                "A VM's end could not be written down",
                metadata: ["vm.id": "\(vm.id)", "error": "\(error)"]
            )
        }
        place.release()
        await forgetIfIdle(runtime)
    }

    /// Hands a task to `run()`, which owns it; false when the service is ending.
    @discardableResult
    nonisolated func submit(_ job: @escaping Job) -> Bool {
        if case .enqueued = submitted.yield(job) { true } else { false }
    }

    func sessionVM(of vm: MicroVM, record: SessionRecord) -> SessionVM {
        SessionVM(
            id: vm.id,
            startedAt: vm.startedAt,
            expiresAt: vm.startedAt.addingTimeInterval(Double(record.vmLifetimeSeconds))
        )
    }

    func record(_ id: SessionID, owner: UserID) async throws -> SessionRecord {
        // A session's owner and shape never change, and what does is written here too: a warm call needs no database.
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
            case .deleted:
                throw SessionError.notFound(record.id)
            case .retired:
                if runtimes[record.id] === runtime { runtimes[record.id] = nil }
            }
        }
    }

    private func forgetIfIdle(_ runtime: SessionRuntime) async {
        guard await runtime.retireIfIdle(), runtimes[runtime.record.id] === runtime else { return }
        runtimes[runtime.record.id] = nil
    }
}
