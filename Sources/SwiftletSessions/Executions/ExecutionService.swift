// SPDX-License-Identifier: Apache-2.0

import AgentClient
import Foundation
package import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import SwiftletAccounts
package import SwiftletCore
package import SwiftletStore
import Synchronization

/// The executions of this node: those that run, and the records and outputs of those that ran.
package actor ExecutionService: ExecutionAPI, Service {
    package struct Configuration: Sendable {
        /// Where outputs are kept that are large, or of executions that take long.
        package var directory: String
        /// Bytes kept of each of an execution's streams.
        package var outputLimit = Defaults.outputBytes
        package var retention = RetentionLimits()

        package init(directory: String) {
            self.directory = directory
        }
    }

    private struct OwnedKey: Hashable {
        let owner: UserID
        let key: String
    }

    /// Ends that may wait for the database before nothing more is accepted.
    private static let maximumUnwritten = 1_000

    let store: ExecutionStore
    let configuration: Configuration
    let archive: OutputArchive
    nonisolated let logger: Logger
    private let sessions: SessionService
    private(set) var running: [ExecutionID: RunningExecution] = [:]
    /// Requests with an idempotency key, from their arrival to their end.
    private var claims: [OwnedKey: EventLoopFuture<RunningExecution?>] = [:]
    let metrics = ExecutionMetrics()
    /// Executions that ended and whose end the database has not taken yet.
    private var unwritten: [ExecutionID: (execution: RunningExecution, isInserted: Bool)] = [:]
    nonisolated let time: any TimeSource
    /// The executions, which outlive the calls that began them.
    nonisolated private let background = BackgroundTasks()
    private var accepting = true

    package init(
        configuration: Configuration,
        store: ExecutionStore,
        sessions: SessionService,
        logger: Logger,
        time: any TimeSource = SystemTimeSource()
    ) {
        self.configuration = configuration
        self.store = store
        self.sessions = sessions
        self.logger = logger
        self.time = time
        archive = OutputArchive(
            directory: configuration.directory,
            store: store,
            budget: OutputBudget(limit: configuration.retention.outputBytes)
        )
    }

    /// Owns all that runs. At a graceful shutdown it takes nothing new and returns when all has ended.
    ///
    /// ``recover()`` must have been called before.
    package func run() async throws {
        await withDiscardingTaskGroup { group in
            // Executions end by themselves when their VMs are gone.
            group.addTask { [background] in await background.run() }
            group.addTask { [self] in await cancelWhenGracefulShutdown { await self.maintain() } }
            // Cancellation ends the wait just as well.
            try? await gracefulShutdown()
            stopAccepting()
            background.finish()
        }
    }

    func stopAccepting() {
        accepting = false
    }

    // MARK: ExecutionAPI

    package func execute(
        _ request: ExecutionRequest
    ) async throws -> (result: ExecutionResult, isReplay: Bool) {
        switch try await begin(request) {
        case .new(let execution): return (try await execution.result(), false)
        case .running(let execution): return (try await execution.result(), true)
        case .ended(let record):
            guard record.outputExpiredAt == nil else { throw SessionError.outputExpired(record.id) }
            return (ExecutionResult(try await archive.handle(of: record)), true)
        }
    }

    package func start(
        _ request: ExecutionRequest
    ) async throws -> (handle: ExecutionHandle, isReplay: Bool) {
        switch try await begin(request) {
        case .new(let execution): (execution.handle, false)
        case .running(let execution): (execution.handle, true)
        case .ended(let record): (try await archive.handle(of: record), true)
        }
    }

    package func handle(of id: ExecutionID, owner: UserID) async throws -> ExecutionHandle {
        if let handle = remembered(id), handle.record.owner == owner { return handle }
        let record = try await stored(id, owner: owner)
        guard record.state.isFinal else {
            // It ended just now, between the two looks.
            throw SessionError.overloaded(reason: "Execution \(id) is being recorded", retryAfter: 1)
        }
        return try await archive.handle(of: record)
    }

    package func record(of id: ExecutionID, owner: UserID) async throws -> ExecutionRecord {
        if let record = remembered(id)?.record, record.owner == owner { return record }
        return try await stored(id, owner: owner)
    }

    /// What this server knows of an execution without the database.
    private func remembered(_ id: ExecutionID) -> ExecutionHandle? {
        (running[id] ?? unwritten[id]?.execution)?.handle
    }

    package func list(_ filter: ExecutionStore.Filter) async throws -> [ExecutionRecord] {
        var filter = filter
        let wanted = filter.states
        // What runs now is written down as what it was when it came.
        if let states = wanted, states.contains(where: { !$0.isFinal }) {
            filter.states = states.union([.queued, .running])
        }
        var found: [ExecutionRecord] = []
        var isLast = false
        while found.count < filter.limit, !isLast {
            let rows = try await store.list(filter)
            found += rows.map { remembered($0.id)?.record ?? $0 }.filter { wanted?.contains($0.state) ?? true }
            filter.before = rows.last?.id
            isLast = rows.count < filter.limit
        }
        return Array(found.prefix(filter.limit))
    }

    package func cancel(_ id: ExecutionID, owner: UserID) async throws -> ExecutionRecord {
        if let execution = running[id], execution.handle.record.owner == owner {
            execution.cancel("The execution was cancelled by request")
            let deadline = ContinuousClock.now + .seconds(2)
            while case let version = execution.handle.version, !execution.handle.isFinal,
                ContinuousClock.now < deadline
            {
                await execution.handle.waitForChange(after: version, within: .until(deadline))
            }
            return execution.handle.record
        }
        return try await record(of: id, owner: owner)
    }

    private func stored(_ id: ExecutionID, owner: UserID) async throws -> ExecutionRecord {
        guard let record = try await store.execution(id, owner: owner) else {
            throw SessionError.executionNotFound(id.rawValue)
        }
        return record
    }

    // MARK: Beginning

    private enum Beginning {
        case new(RunningExecution)
        /// The same request came before and still runs.
        case running(RunningExecution)
        /// The same request came before.
        case ended(ExecutionRecord)
    }

    private func begin(_ request: ExecutionRequest) async throws -> Beginning {
        guard accepting else { throw SessionError.shuttingDown }
        guard unwritten.count < Self.maximumUnwritten else {
            let reason = "The server cannot write down how executions end; its operator's log says why"
            throw SessionError.overloaded(reason: reason, retryAfter: 10)
        }
        guard let claim = request.idempotency else { return .new(try await accept(request)) }
        let key = OwnedKey(owner: request.owner, key: claim.key)
        if let earlier = claims[key] {
            guard let execution = try await earlier.get() else { return try await replay(claim, of: request.owner) }
            guard execution.handle.record.idempotency == claim else { throw SessionError.idempotencyMismatch }
            return .running(execution)
        }
        let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: RunningExecution?.self)
        claims[key] = promise.futureResult
        do {
            if try await store.execution(key: claim.key, owner: request.owner) != nil {
                claims[key] = nil
                promise.succeed(nil)
                return try await replay(claim, of: request.owner)
            }
            let execution = try await accept(request)
            promise.succeed(execution)
            return .new(execution)
        } catch {
            claims[key] = nil
            promise.fail(error)
            throw error
        }
    }

    /// What the execution that has this key has become.
    private func replay(_ claim: IdempotencyClaim, of owner: UserID) async throws -> Beginning {
        guard let record = try await store.execution(key: claim.key, owner: owner), record.state.isFinal else {
            throw SessionError.overloaded(reason: "The first request with this key has just failed", retryAfter: 1)
        }
        guard record.idempotency == claim else { throw SessionError.idempotencyMismatch }
        return .ended(record)
    }

    /// Takes an execution in; from now on it runs to its end whatever its caller does.
    private func accept(_ request: ExecutionRequest) async throws -> RunningExecution {
        let plan = try await sessions.admission.executionBegins(for: request.owner)
        do {
            let session = try await sessions.enter(request)
            do {
                return try await accept(request, in: session, plan: plan)
            } catch {
                await sessions.leave(session, discardingBecause: "Nothing ran: \(error)")
                throw error
            }
        } catch {
            sessions.admission.executionEnded(for: request.owner)
            throw error
        }
    }

    private func accept(
        _ request: ExecutionRequest,
        in session: SessionEntry,
        plan: Plan
    ) async throws -> RunningExecution {
        // A caller that is answered before the end is answered with an error when no VM is to be had.
        if request.mode != .sync { _ = try await sessions.lease(session.active) }
        let execution = makeExecution(request, in: session, plan: plan)
        let record = execution.handle.record
        // A caller that is told the id, or retries by its key, relies on the record; others are answered when it is complete.
        let isPromised = request.mode != .sync || request.idempotency != nil
        running[record.id] = execution
        do {
            if isPromised, !(try await store.insert(record)) { throw SessionError.idempotencyMismatch }
        } catch {
            running[record.id] = nil
            throw error
        }
        // It goes on in another task, whose lines of the log name the request too.
        var logger = Logger.current
        logger[metadataKey: "execution.id"] = "\(record.id)"
        for (name, value) in SessionService.metadata(of: session.record) { logger[metadataKey: name] = value }
        execution.takePlace()
        let isTaken = background.submit { [self, logger] in
            await withLogger(logger) { _ in await run(execution, isRecorded: isPromised) }
        }
        if isTaken { return execution }
        execution.leavePlace()
        running[record.id] = nil
        if isPromised { try await store.remove(record.id) }
        throw SessionError.shuttingDown
    }

    private func makeExecution(
        _ request: ExecutionRequest,
        in session: SessionEntry,
        plan: Plan
    ) -> RunningExecution {
        let record = ExecutionRecord(
            id: .random(),
            owner: request.owner,
            session: session.id,
            language: request.language.rawValue,
            mode: request.mode,
            createdAt: time.date,
            timeout: request.timeout?.seconds,
            idempotency: request.idempotency
        )
        let limit = min(configuration.outputLimit, plan.outputLimitBytes ?? .max)
        let handle = ExecutionHandle(record, logs: archive.newLogs(for: record.id, limit: limit))
        return RunningExecution(request, in: session, of: sessions, handle: handle, time: time)
    }

    // MARK: Ending

    /// Runs an execution to its end, records that, and answers its caller.
    private func run(_ execution: RunningExecution, isRecorded: Bool) async {
        async let recorded: Bool = isRecorded ? true : insert(execution.handle.record)
        let ending = await execution.run()
        let isStored = await recorded
        var record = execution.handle.record
        record.sizes[.results, default: .init()].dropped += execution.results.withLock { decoder in
            decoder.finish()
            return decoder.dropped
        }
        record.endedAt = time.date
        switch ending {
        case .ended(let change):
            change(&record)
        case .refused(let error):
            Self.describe(error, in: &record)
            if execution.request.mode == .sync {
                return await refuse(execution, error, record: record, isStored: isStored)
            }
            await attempt("A key could not be released") { try await store.releaseKey(of: record.id) }
        }
        await conclude(execution, record, isStored: isStored)
        await sessions.leave(execution.session)
    }

    private func conclude(_ execution: RunningExecution, _ record: ExecutionRecord, isStored: Bool) async {
        // The request of a synchronous execution has a line of its own.
        let isPlain = record.mode == .sync && record.state == .exited
        Logger.current.log(level: isPlain ? .debug : .info, "Execution ended", metadata: record.logMetadata)
        execution.handle.update { $0 = record }
        metrics.count(record)
        do {
            try await archive.write(record, of: execution.handle, isInserted: isStored)
            forget(execution)
        } catch {
            Logger.current.error("An execution's end could not be recorded yet", metadata: ["error": "\(error)"])
            unwritten[record.id] = (execution, isStored)
            forget(execution, keepingClaim: true)
        }
        // Not before: its caller's next request finds the place in the plan free.
        execution.succeed(ExecutionResult(execution.handle))
    }

    /// A caller who waits is told that nothing ran; then there is no execution, and no session that was made for it.
    private func refuse(
        _ execution: RunningExecution,
        _ error: SessionError,
        record: ExecutionRecord,
        isStored: Bool
    ) async {
        execution.handle.update { $0 = record }
        if isStored {
            await attempt("A refused execution's record could not be deleted") { try await store.remove(record.id) }
        }
        await sessions.leave(execution.session, discardingBecause: "Nothing ran: \(error)")
        forget(execution)
        execution.fail(error)
    }

    private static func describe(_ error: SessionError, in record: inout ExecutionRecord) {
        switch error {
        case .noInterpreter, .overloaded: record.state = .cancelled
        default: record.state = .vmLost
        }
        record.note = "\(error); the code did not run"
    }

    private func forget(_ execution: RunningExecution, keepingClaim: Bool = false) {
        running[execution.id] = nil
        sessions.admission.executionEnded(for: execution.request.owner)
        if let claim = execution.request.idempotency, !keepingClaim {
            claims[OwnedKey(owner: execution.request.owner, key: claim.key)] = nil
        }
    }

    /// Tries again to record the ends that the database did not take. One that fails again does not keep the others back.
    func recordEnds() async {
        for (id, (execution, isInserted)) in unwritten {
            await attempt("An execution's end could not be recorded") {
                let record = execution.handle.record
                try await archive.write(record, of: execution.handle, isInserted: isInserted)
                unwritten[id] = nil
                if let claim = record.idempotency { claims[OwnedKey(owner: record.owner, key: claim.key)] = nil }
            }
        }
    }

    private func insert(_ record: ExecutionRecord) async -> Bool {
        do {
            return try await store.insert(record)
        } catch {
            Logger.current.error(
                "An execution could not be recorded",
                metadata: ["error": "\(error)"]
            )
            return false
        }
    }
}
