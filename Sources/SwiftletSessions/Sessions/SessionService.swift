// SPDX-License-Identifier: Apache-2.0

import Foundation
package import Logging
import ServiceLifecycle
package import SwiftletAccounts
package import SwiftletCore
package import SwiftletStore
package import SwiftletVM

/// The sessions of this node: who owns them, which VM each has, and what runs in it.
package actor SessionService: SessionAPI, Service {
    package struct Configuration: Sendable {
        /// Seconds that a VM lives when the session does not say.
        package var defaultLifetimeSeconds = Defaults.vmLifetimeSeconds
        package var defaultMemoryMB = Defaults.memoryMB
        package var defaultVCPUCount = Defaults.vcpuCount
        /// Days for which ended VMs and unused sessions are remembered.
        package var retentionDays = Defaults.retentionDays
        /// Calls of one session that may run or wait at once.
        package var maximumCallsPerSession = 128
        /// Files of one session that may be moved at once.
        package var maximumTransfersPerSession = 16

        package init() {}
    }

    let configuration: Configuration
    let store: SessionStore
    nonisolated let logger: Logger
    /// Holds users to their plans.
    nonisolated let admission: Admission
    nonisolated let audit: AuditBuffer
    nonisolated let time: any TimeSource
    private let provider: any VMProvider
    var active: [SessionID: ActiveSession] = [:]
    /// What goes on after the calls that began it: the watches over VMs, the ends of transfers.
    nonisolated private let background = BackgroundTasks()
    private var accepting = true

    package init(
        configuration: Configuration,
        store: SessionStore,
        admission: Admission,
        audit: AuditBuffer,
        provider: any VMProvider,
        logger: Logger,
        time: any TimeSource = SystemTimeSource()
    ) {
        self.admission = admission
        self.audit = audit
        self.configuration = configuration
        self.store = store
        self.provider = provider
        self.logger = logger
        self.time = time
    }

    /// Owns the VMs and what watches them. At a graceful shutdown it kills the VMs and returns when they are gone.
    ///
    /// ``recover()`` must have been called before.
    package func run() async throws {
        await withDiscardingTaskGroup { group in
            group.addTask { [provider] in
                await cancelWhenGracefulShutdown { await provider.run() }
            }
            group.addTask { [self] in await cancelWhenGracefulShutdown { await self.purgeRegularly() } }
            // The tasks end by themselves when their VMs are gone.
            group.addTask { [background] in await background.run() }
            // Cancellation ends the wait just as well.
            try? await gracefulShutdown()
            stopAccepting()
            background.finish()
        }
    }

    // MARK: SessionAPI

    package func createSession(owner: UserID, options: SessionOptions) async throws -> SessionRecord {
        try checkAccepting()
        let plan = try await admission.plan(of: owner)
        try admission.check(options, plan: plan)
        // What the server gives to those who do not say is no more than the plan has.
        func standard(_ value: Int, _ limit: Int?) -> Int { min(value, limit ?? value) }
        var record = SessionRecord(
            id: .random(),
            owner: owner,
            createdAt: time.date,
            vmLifetimeSeconds: options.vmLifetimeSeconds
                ?? standard(configuration.defaultLifetimeSeconds, plan.vmLifetimeSeconds),
            memoryMB: options.memoryMB ?? standard(configuration.defaultMemoryMB, plan.memoryMB),
            vcpuCount: options.vcpuCount ?? standard(configuration.defaultVCPUCount, plan.vcpuCount),
            environment: options.environment ?? [:],
            metadataJSON: options.metadataJSON ?? "{}"
        )
        try await store.insert(record)
        if options.environment != nil {
            let session = try await enter(record)
            do {
                record.vm = sessionVM(of: try await lease(session), record: record)
                await leave(session)
            } catch {
                await leave(session)
                await deleteRow(of: record.id)
                throw error
            }
        }
        return record
    }

    package func status(of id: SessionID, owner: UserID) async throws -> SessionStatus {
        guard var record = try await store.session(id), record.owner == owner else { throw SessionError.notFound(id) }
        if let vm = await active[id]?.currentVM, vm.end == nil {
            let assigned = sessionVM(of: vm, record: record)
            record.vm = assigned
            return SessionStatus(
                record: record,
                vm: vm.isRunning ? .active : .starting,
                uptime: max(0, (time.now - vm.started).seconds),
                expiresIn: max(0, Double(record.vmLifetimeSeconds) - (time.now - vm.started).seconds)
            )
        }
        guard record.vm != nil else { return SessionStatus(record: record, vm: nil, uptime: nil, expiresIn: nil) }
        return SessionStatus(record: record, vm: .killed, uptime: nil, expiresIn: 0)
    }

    package func kill(_ id: SessionID, owner: UserID) async throws -> String {
        _ = try await record(id, owner: owner)
        guard let session = active[id], let vm = await session.currentVM, vm.end == nil else {
            throw SessionError.noVM(id)
        }
        vm.kill(reason: "It was killed by request")
        let end = try await vm.waitForEnd()
        await session.releaseEnded(vm)
        let origin = vm.restore?.origin
        try await store.endVM(session: id, vmID: vm.id, at: time.date, reason: end.description, origin: origin)
        return vm.id
    }

    // MARK: Taking part

    /// Takes part in the session of a request, which is created if the request names none; every success needs a `leave(_:)` or
    /// a `leave(_:discardingBecause:)`.
    func enter(_ request: ExecutionRequest) async throws -> SessionEntry {
        try checkAccepting()
        if let id = request.session {
            let record = try await record(id, owner: request.owner)
            return SessionEntry(active: try await enter(record), isMadeForCall: false)
        }
        let record = try await createSession(owner: request.owner, options: SessionOptions())
        auditSession(.sessionCreated, by: .user(request.owner), record, because: "An execution needed one")
        return SessionEntry(active: try await enter(record), isMadeForCall: true)
    }

    /// Ends a call's part in a session.
    func leave(_ entry: SessionEntry) async {
        await leave(entry.active)
    }

    /// Ends the part of a call that did not run. A session that was made for it goes with its VM, as no client knows of it.
    func leave(_ entry: SessionEntry, discardingBecause reason: String) async {
        if entry.isMadeForCall {
            if await discard(entry.active) {
                auditSession(.sessionDeleted, by: .system, entry.record, because: reason)
            }
        }
        await leave(entry.active)
    }

    /// Ends the session's VM and deletes its row.
    ///
    /// - Returns: false when the row could not be deleted, which is logged.
    private func discard(_ session: ActiveSession) async -> Bool {
        do {
            try await end(session)
        } catch {
            Logger.current.error(
                "The VM of a session that is not needed did not end",
                metadata: ["session.id": "\(session.record.id)", "error": "\(error)"]
            )
        }
        return await deleteRow(of: session.record.id)
    }

    /// - Returns: false when the row could not be deleted, which is logged.
    @discardableResult
    private func deleteRow(of id: SessionID) async -> Bool {
        do {
            _ = try await store.delete(id)
            return true
        } catch {
            Logger.current.error(
                "A session's record could not be deleted",
                metadata: ["session.id": "\(id)", "error": "\(error)"]
            )
            return false
        }
    }

    /// Ends the caller's part in a session.
    func leave(_ session: ActiveSession) async {
        await session.leave()
        await forgetIfIdle(session)
    }

    /// New sessions, executions and operations on files are refused from now on.
    package func stopAccepting() {
        accepting = false
    }

    /// - Throws: `SessionError.shuttingDown` when nothing new is taken.
    func checkAccepting() throws {
        guard accepting else { throw SessionError.shuttingDown }
    }

    /// What the provider counts.
    func engineNumbers() async -> EngineNumbers {
        await provider.numbers
    }

    // MARK: VMs

    /// The session's VM, a new one if none lives, whose end is then watched for.
    func lease(_ session: ActiveSession) async throws -> any VirtualMachine {
        do {
            // What the VM does later is still a consequence of this request.
            return try await withLogger(mergingMetadata: Self.metadata(of: session.record)) { logger in
                try await session.lease(admission: admission) { vm, place in
                    submit { [self] in
                        await withLogger(logger) { _ in await watch(vm, of: session, place: place) }
                    }
                }
            }
        } catch MicroVMError.full(let reason) {
            throw SessionError.overloaded(reason: reason, retryAfter: 5)
        } catch let error as MicroVMError {
            throw SessionError.vmUnavailable(reason: error.description)
        }
    }

    /// Kills the VM at the end of its lifetime, and records its beginning and its end.
    private func watch(_ vm: any VirtualMachine, of session: ActiveSession, place: VMReservation) async {
        async let _ = endLifetime(of: vm, session)
        await recordStart(of: vm, session)
        do {
            let end = try await vm.waitForEnd()
            place.release()
            auditEnd(of: vm, record: session.record, reason: end.description)
            try await store.endVM(
                session: session.record.id,
                vmID: vm.id,
                at: time.date,
                reason: end.description,
                origin: vm.restore?.origin
            )
        } catch {
            Logger.current.error(
                "A VM's end could not be recorded",
                metadata: ["vm.id": "\(vm.id)", "error": "\(error)"]
            )
        }
        place.release()
        await forgetIfIdle(session)
    }

    private func recordStart(of vm: any VirtualMachine, _ session: ActiveSession) async {
        do {
            // The record may have been changed since it was read.
            let assigned = sessionVM(of: vm, record: session.record)
            guard let record = try await store.assign(vm: assigned, to: session.record.id) else {
                return vm.kill(reason: "Its session was deleted")
            }
            session.adopt(record)
            auditStart(of: vm, record: record)
        } catch {
            Logger.current.error(
                "A VM's start could not be recorded",
                metadata: ["vm.id": "\(vm.id)", "error": "\(error)"]
            )
            vm.kill(reason: "The server could not record its start")
        }
    }

    /// Kills the VM when its lifetime has passed, unless this is cancelled first.
    private nonisolated func endLifetime(of vm: any VirtualMachine, _ session: ActiveSession) async {
        while true {
            // It may have been made longer while this slept.
            let seconds = session.record.vmLifetimeSeconds
            let deadline = vm.started + .seconds(seconds)
            guard time.now < deadline else { return vm.kill(reason: "Its lifetime of \(seconds) s ended") }
            do {
                try await time.sleep(until: deadline)
            } catch {
                return
            }
        }
    }

    /// Hands a task to `run()`, which owns it; false when the service is ending.
    @discardableResult
    nonisolated func submit(_ work: @escaping BackgroundTasks.Work) -> Bool {
        background.submit(work)
    }

    nonisolated func sessionVM(of vm: any VirtualMachine, record: SessionRecord) -> SessionVM {
        SessionVM(
            id: vm.id,
            startedAt: vm.startedAt,
            expiresAt: vm.startedAt.addingTimeInterval(Double(record.vmLifetimeSeconds))
        )
    }

    func record(_ id: SessionID, owner: UserID) async throws -> SessionRecord {
        // A session's owner and shape never change, and what does is written here too: a warm call needs no database.
        let cached = active[id]?.record
        guard let record = if let cached { cached } else { try await store.session(id) }, record.owner == owner else {
            throw SessionError.notFound(id)
        }
        return record
    }

    /// Takes part in a session; every success needs a `leave(_:)`.
    func enter(_ record: SessionRecord) async throws -> ActiveSession {
        let limit = configuration.maximumCallsPerSession
        while true {
            let session = active[record.id] ?? ActiveSession(record: record, provider: provider, time: time)
            active[record.id] = session
            switch await session.enter(limit: limit) {
            case .entered:
                return session
            case .full:
                let reason = "Session \(record.id) has \(limit) calls already; wait for some to end"
                throw SessionError.overloaded(reason: reason, retryAfter: 1)
            case .deleted:
                throw SessionError.notFound(record.id)
            case .retired:
                if active[record.id] === session { active[record.id] = nil }
            }
        }
    }

    private func forgetIfIdle(_ session: ActiveSession) async {
        guard await session.retireIfIdle(), active[session.record.id] === session else { return }
        active[session.record.id] = nil
    }
}
