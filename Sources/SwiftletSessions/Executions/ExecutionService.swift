// SPDX-License-Identifier: Apache-2.0

import Foundation
package import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
package import SwiftletStore
import SwiftletVM
import Synchronization

/// The executions of this node: those that run, and the records and outputs of those that ran.
package actor ExecutionService: ExecutionAPI, Service {
    package struct Configuration: Sendable {
        /// Where outputs are kept that are large, or of executions that take long.
        package var directory: String
        /// Bytes kept of each of an execution's streams.
        package var outputLimit = 256 << 20
        package var retention = RetentionLimits()

        package init(directory: String) {
            self.directory = directory
        }
    }

    private struct OwnedKey: Hashable {
        let owner: UserID
        let key: String
    }

    private typealias Job = @Sendable () async -> Void

    /// Ends that may wait for the database before nothing more is taken in.
    private static let maximumUnwritten = 1_000

    let store: ExecutionStore
    let configuration: Configuration
    let archive: OutputArchive
    nonisolated let logger: Logger
    private let sessions: SessionService
    private(set) var live: [ExecutionID: LiveExecution] = [:]
    /// Requests with an idempotency key, from their arrival to their end.
    private var claims: [OwnedKey: EventLoopFuture<LiveExecution?>] = [:]
    let metrics = ExecutionMetrics()
    /// Executions that are over and whose end the database has not taken yet.
    private var unwritten: [ExecutionID: (execution: LiveExecution, isInserted: Bool)] = [:]
    private let jobs: AsyncStream<Job>
    private let submitted: AsyncStream<Job>.Continuation
    private var accepting = true

    package init(
        configuration: Configuration,
        store: ExecutionStore,
        sessions: SessionService,
        logger: Logger
    ) {
        self.configuration = configuration
        self.store = store
        self.sessions = sessions
        self.logger = logger
        archive = OutputArchive(
            directory: configuration.directory,
            store: store,
            budget: OutputBudget(limit: configuration.retention.outputBytes)
        )
        (jobs, submitted) = AsyncStream.makeStream()
    }

    /// Owns all that runs. At a graceful shutdown it takes nothing new and returns when all has ended.
    package func run() async throws {
        try await recover()
        await withDiscardingTaskGroup { group in
            group.addTask { [self] in
                // Executions end by themselves when their VMs are gone; the stream ends when no more may come.
                await withDiscardingTaskGroup { children in
                    for await job in jobs { children.addTask { await job() } }
                }
            }
            group.addTask { [self] in await cancelWhenGracefulShutdown { await self.maintain() } }
            // Cancellation ends the wait just as well.
            try? await gracefulShutdown()
            stopAccepting()
            submitted.finish()
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
            return (ExecutionResult(try await archive.journal(of: record)), true)
        }
    }

    package func start(
        _ request: ExecutionRequest
    ) async throws -> (journal: ExecutionJournal, isReplay: Bool) {
        switch try await begin(request) {
        case .new(let execution): (execution.journal, false)
        case .running(let execution): (execution.journal, true)
        case .ended(let record): (try await archive.journal(of: record), true)
        }
    }

    package func journal(of id: ExecutionID, owner: UserID) async throws -> ExecutionJournal {
        if let journal = remembered(id), journal.record.owner == owner { return journal }
        let record = try await stored(id, owner: owner)
        guard record.state.isFinal else {
            // This server has just started, and has not looked at it yet.
            throw SessionError.overloaded(reason: "Execution \(id) is being looked after", retryAfter: 1)
        }
        return try await archive.journal(of: record)
    }

    package func record(of id: ExecutionID, owner: UserID) async throws -> ExecutionRecord {
        if let record = remembered(id)?.record, record.owner == owner { return record }
        return try await stored(id, owner: owner)
    }

    /// What this server knows of an execution without the database.
    private func remembered(_ id: ExecutionID) -> ExecutionJournal? {
        (live[id] ?? unwritten[id]?.execution)?.journal
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
        if let execution = live[id], execution.journal.record.owner == owner {
            execution.cancel("The execution was cancelled by request")
            let deadline = ContinuousClock.now + .seconds(2)
            while case let version = execution.journal.version, !execution.journal.isFinal,
                ContinuousClock.now < deadline
            {
                await execution.journal.change(after: version, within: .until(deadline))
            }
            return execution.journal.record
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
        case new(LiveExecution)
        /// The same request came before and still runs.
        case running(LiveExecution)
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
            guard execution.journal.record.idempotency == claim else { throw SessionError.idempotencyMismatch }
            return .running(execution)
        }
        let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: LiveExecution?.self)
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

    /// Takes an execution in; from now on it goes its way whatever its caller does.
    private func accept(_ request: ExecutionRequest) async throws -> LiveExecution {
        let plan = try await sessions.admission.executionBegins(for: request.owner)
        do {
            let (session, runtime) = try await sessions.enter(request)
            do {
                return try await accept(request, in: session, runtime, plan: plan)
            } catch {
                await sessions.leave(runtime)
                if request.session == nil { await sessions.discard(session.id) }
                throw error
            }
        } catch {
            sessions.admission.executionEnded(for: request.owner)
            throw error
        }
    }

    private func accept(
        _ request: ExecutionRequest,
        in session: SessionRecord,
        _ runtime: SessionRuntime,
        plan: Plan
    ) async throws -> LiveExecution {
        // Who is told at once that it was taken in, is told at once, too, when no VM is to be had.
        if request.mode != .sync { _ = try await sessions.lease(runtime) }
        let record = ExecutionRecord(
            id: .random(),
            owner: request.owner,
            session: session.id,
            language: request.language.rawValue,
            mode: request.mode,
            createdAt: Date(),
            timeout: request.timeout?.seconds,
            idempotency: request.idempotency
        )
        let limit = min(configuration.outputLimit, plan.outputLimitBytes ?? .max)
        let execution = LiveExecution(record, logs: archive.newLogs(for: record.id, limit: limit))
        // Whoever is told its id, or retries by its key, relies on it; others are answered when it is written down at the end.
        let isPromised = request.mode != .sync || request.idempotency != nil
        live[record.id] = execution
        do {
            if isPromised, !(try await store.insert(record)) { throw SessionError.idempotencyMismatch }
        } catch {
            live[record.id] = nil
            throw error
        }
        let way = Execution(request: request, session: session, runtime: runtime, sessions: sessions, live: execution)
        // It goes on in another task, in whose lines of the log its request shall be found.
        var logger = Logger.current
        logger[metadataKey: "execution.id"] = "\(record.id)"
        for (name, value) in SessionService.metadata(of: session) { logger[metadataKey: name] = value }
        let job: Job = { [self, logger] in
            await withLogger(logger) { _ in
                await follow(way, isWritten: isPromised)
                await sessions.leave(runtime)
            }
        }
        if case .enqueued = submitted.yield(job) { return execution }
        live[record.id] = nil
        if isPromised { try await store.remove(record.id) }
        throw SessionError.shuttingDown
    }

    // MARK: Ending

    /// Follows an execution to its end, writes that down, and answers whoever waits.
    private func follow(_ way: Execution, isWritten: Bool) async {
        let execution = way.live
        async let written: Bool = isWritten ? true : insert(execution.journal.record)
        let ending = await way.run()
        let isStored = await written
        var record = execution.journal.record
        record.sizes[.results, default: .init()].dropped += execution.results.withLock { decoder in
            decoder.finish()
            return decoder.dropped
        }
        record.endedAt = Date()
        switch ending {
        case .ended(let change):
            change(&record)
        case .refused(let error):
            Self.note(error, in: &record)
            if way.request.mode == .sync {
                await refuse(way, error, record: record, isStored: isStored)
                return
            }
            await attempt("A key could not be released") { try await store.releaseKey(of: record.id) }
        }
        let final = record
        // Of what somebody waited for there is the request's own line.
        let isPlain = final.mode == .sync && final.state == .exited
        Logger.current.log(level: isPlain ? .debug : .info, "Execution ended", metadata: final.logMetadata)
        execution.journal.update { $0 = final }
        metrics.count(record)
        do {
            try await archive.write(record, of: execution.journal, isInserted: isStored)
            forget(way)
        } catch {
            Logger.current.error(
                "An execution's end could not be written down yet",
                metadata: ["error": "\(error)"]
            )
            unwritten[record.id] = (execution, isStored)
            forget(way, keepingClaim: true)
        }
        // Not before: its caller's next request finds the place in the plan free.
        execution.succeed(ExecutionResult(execution.journal))
    }

    /// A caller who waits is told that nothing ran; then there is no execution.
    private func refuse(_ way: Execution, _ error: SessionError, record: ExecutionRecord, isStored: Bool) async {
        way.live.journal.update { $0 = record }
        if isStored {
            await attempt("A refused execution could not be forgotten") { try await store.remove(record.id) }
        }
        if way.request.session == nil {
            await sessions.discard(way.session.id)
            sessions.auditSession(.sessionDeleted, by: .system, way.session, because: "Nothing ran: \(error)")
        }
        forget(way)
        way.live.fail(error)
    }

    private static func note(_ error: SessionError, in record: inout ExecutionRecord) {
        switch error {
        case .noInterpreter, .overloaded: record.state = .cancelled
        default: record.state = .vmLost
        }
        record.note = "\(error); the code did not run"
    }

    private func forget(_ way: Execution, keepingClaim: Bool = false) {
        live[way.live.id] = nil
        sessions.admission.executionEnded(for: way.request.owner)
        if let claim = way.request.idempotency, !keepingClaim {
            claims[OwnedKey(owner: way.request.owner, key: claim.key)] = nil
        }
    }

    /// Tries again to write down the ends that the database did not take.
    func writeDownEnds() async throws {
        for (id, (execution, isInserted)) in unwritten {
            let record = execution.journal.record
            try await archive.write(record, of: execution.journal, isInserted: isInserted)
            unwritten[id] = nil
            if let claim = record.idempotency { claims[OwnedKey(owner: record.owner, key: claim.key)] = nil }
        }
    }

    /// Does what must not fail its caller; a failure is the operator's.
    func attempt(_ failure: String, _ body: () async throws -> Void) async {
        do {
            try await body()
        } catch is CancellationError {
            // The server is being stopped.
        } catch {
            Logger.current.error("\(failure)", metadata: ["error": "\(error)"])
        }
    }

    private func insert(_ record: ExecutionRecord) async -> Bool {
        do {
            return try await store.insert(record)
        } catch {
            Logger.current.error(
                "An execution could not be written down",
                metadata: ["error": "\(error)"]
            )
            return false
        }
    }
}
