// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import NIOCore
import NIOPosix
import SwiftletStore
import SwiftletVM
import Synchronization

/// One piece of code on its way through a VM, followed to its true end: then the session's next call finds the interpreter free, or
/// gets a new VM.
struct Execution: Sendable {
    /// How an execution ended.
    enum Ending: Sendable {
        /// What its record is to say.
        case ended(@Sendable (inout ExecutionRecord) -> Void)
        /// Nothing ran.
        case refused(SessionError)
    }

    /// How long an agent may stay silent after the code's time is over.
    static let silenceLimit: TimeAmount = .seconds(5)
    /// The longest life of a VM; an execution that nobody waits for may stand in a queue for as long.
    static let longestLife: Duration = .seconds(86_400)

    let request: ExecutionRequest
    let session: SessionRecord
    let runtime: SessionRuntime
    let sessions: SessionService
    let live: LiveExecution

    /// Runs to the end. The caller is answered on the way when its time is over first.
    func run() async -> Ending {
        do {
            return request.language.isStateful ? try await inTurn() : try await start()
        } catch let error as SessionError {
            return .refused(error)
        } catch {
            return .refused(.vmUnavailable(reason: "\(error)"))
        }
    }

    private func inTurn() async throws -> Ending {
        let turns = request.language == .python ? runtime.pythonTurns : runtime.javascriptTurns
        let ticket = TurnQueue.Ticket()
        live.queues { turns.withdraw(ticket) }
        switch await turns.acquire(as: ticket, until: queueDeadline) {
        case .full:
            let reason = "Too many \(request.language.rawValue) calls of session \(session.id) wait for their turn"
            throw SessionError.overloaded(reason: reason, retryAfter: 1)
        case .withdrawn:
            return cancelled
        case .timedOut:
            note(try await sessions.lease(runtime))
            return notRun(while: "another \(request.language.rawValue) call of the session was running")
        case .granted:
            defer { turns.release() }
            return try await start()
        }
    }

    /// Until when it may wait for its turn.
    private var queueDeadline: ContinuousClock.Instant {
        request.mode == .async ? request.receivedAt + Self.longestLife : budget.guestDeadline
    }

    /// Without one the code's time ends with its VM, whose life may be made longer meanwhile.
    private var timeout: Duration { request.timeout ?? Self.longestLife }

    /// Where nobody waits at a socket, the code's time begins when the code does.
    private var budget: TimeBudget {
        switch request.mode {
        case .sync: TimeBudget(receivedAt: request.receivedAt, timeout: timeout)
        case .stream: TimeBudget(startedAt: request.receivedAt, timeout: timeout)
        case .async: TimeBudget(startedAt: .now, timeout: timeout)
        }
    }

    private func start() async throws -> Ending {
        guard live.cancellation == nil else { return cancelled }
        let vm = try await sessions.lease(runtime)
        let budget = budget
        let agent: AgentConnection?
        do {
            agent = try await vm.agent(within: .until(budget.guestDeadline))
        } catch let error as MicroVMError {
            throw SessionError.vmUnavailable(reason: error.description)
        }
        note(vm)
        guard let agent else { return notRun(while: "the microVM was starting") }
        guard live.cancellation == nil else { return cancelled }
        let started = ContinuousClock.now
        live.journal.update {
            $0.state = .running
            $0.startedAt = Date()
        }
        let run = agent.execute(
            request.language.guestLanguage,
            source: Array(request.source.utf8),
            timeout: budget.guestDeadline - started
        )
        run.setDeadline(.until(budget.hostDeadline))
        live.runs(run)
        do {
            return try await follow(run, vm: vm, started: started, deadline: budget.hostDeadline)
        } catch let error as SessionError {
            throw error
        } catch {
            // Only the VM's end breaks the stream of events.
            note(vm)
            return lost(started: started, error: error)
        }
    }

    private func follow(
        _ run: AgentExecution,
        vm: MicroVM,
        started: ContinuousClock.Instant,
        deadline: ContinuousClock.Instant
    ) async throws -> Ending {
        var isOverdue = false
        for try await event in run.events {
            switch event {
            case .output(let channel, let bytes):
                try await keep(bytes, of: channel)
                live.journal.advanced()
                await live.journal.waitForFollowers(until: deadline) { vm.end != nil }
                run.consumed(bytes.count)
            case .exited(let report):
                note(vm)
                return ending(report, executionTime: .now - started)
            case .refused(let refusal) where refusal.code == .noInterpreter:
                throw SessionError.noInterpreter(request.language)
            case .refused(let refusal):
                throw SessionError.vmUnavailable(reason: refusal.message)
            case .deadline where live.cancellation != nil:
                vm.kill(reason: "Its agent did not end an execution that was cancelled")
            case .deadline where !isOverdue:
                isOverdue = true
                note(vm)
                answerOverdue(executionTime: .now - started)
                run.cancel(.timeout)
                run.setDeadline(Self.silenceLimit)
            case .deadline:
                vm.kill(reason: "Its agent did not end an execution that was over")
            }
        }
        throw MicroVMError.ended(vm.end ?? .killed(reason: "The server shut down"))
    }

    private func keep(_ bytes: [UInt8], of channel: AgentProtocol.Channel) async throws {
        switch channel {
        case .stdout: try await keep(bytes, in: .stdout)
        case .source, .content: break  // The connection lets neither through on an execution's stream.
        case .stderr: try await keep(bytes, in: .stderr)
        case .results:
            for bundle in live.results.withLock({ $0.append(bytes) }) { try await keep(bundle: bundle) }
        }
    }

    private func keep(bundle: String) async throws {
        let line = Array(bundle.utf8) + [UInt8(ascii: "\n")]
        let isKept = try await add(line.count, to: .results) { $0.appendWhole(line) }
        if !isKept { live.journal.update { $0.sizes[.results, default: .init()].dropped += 1 } }
    }

    private func keep(_ bytes: [UInt8], in stream: ExecutionStream) async throws {
        try await add(bytes.count, to: stream) { $0.append(bytes[...]) }
    }

    /// Adds to a log, on a thread that may wait for the disk unless the bytes stay in memory.
    private func add<Value: Sendable>(
        _ count: Int,
        to stream: ExecutionStream,
        _ body: @escaping @Sendable (OutputLog) -> Value
    ) async throws -> Value {
        let log = live.journal.log(of: stream)
        if log.fitsInMemory(count) { return body(log) }
        return try await NIOThreadPool.singleton.runIfActive { body(log) }
    }

    /// Writes down which VM it is that the code runs in.
    private func note(_ vm: MicroVM) {
        let restore = vm.restore.map(RestoreRecord.init)
        live.journal.update {
            $0.vmID = vm.id
            $0.vmStartedAt = vm.startedAt
            $0.restore = restore
        }
    }
}

extension RestoreRecord {
    fileprivate init(_ restore: MicroVM.Restore) {
        self.init(
            generation: restore.generation,
            origin: restore.origin,
            template: restore.template,
            confirmed: restore.confirmed,
            milliseconds: restore.milliseconds
        )
    }
}

extension Language {
    fileprivate var guestLanguage: GuestLanguage {
        switch self {
        case .python: .python
        case .bash: .bash
        case .javascript: .javascript
        }
    }
}
