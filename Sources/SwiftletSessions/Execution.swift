// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import Logging
import NIOCore
import NIOPosix
import SwiftletStore
import SwiftletVM

/// One piece of code on its way through a VM.
///
/// The caller is answered once, in time; the execution itself is followed to its true end, so that the session's next call
/// finds the interpreter free or a new VM.
struct Execution: Sendable {
    /// How long an agent may stay silent after the caller was answered for it.
    private static let silenceLimit: TimeAmount = .seconds(5)

    let request: ExecutionRequest
    let record: SessionRecord
    let runtime: SessionRuntime
    let service: SessionService
    private let createdAt = Date()
    private let budget: TimeBudget
    private let stdout: OutputSpool
    private let stderr: OutputSpool
    private let results = ResultSpool()

    init(request: ExecutionRequest, record: SessionRecord, runtime: SessionRuntime, service: SessionService) {
        self.request = request
        self.record = record
        self.runtime = runtime
        self.service = service
        budget = TimeBudget(receivedAt: request.receivedAt, timeout: request.timeout)
        let configuration = service.configuration
        stdout = OutputSpool(directory: configuration.spoolDirectory, limit: configuration.outputLimit)
        stderr = OutputSpool(directory: configuration.spoolDirectory, limit: configuration.outputLimit)
    }

    /// Runs to the end; the promise is fulfilled on the way, always.
    func run(answering promise: EventLoopPromise<ExecutionResult>) async {
        do {
            switch request.language {
            case .bash: try await start(answering: promise)
            case .python, .javascript:
                try await inTurn {
                    try await start(answering: promise)
                } late: {
                    promise.succeed($0)
                }
            }
        } catch {
            promise.fail(error)
        }
    }

    private func inTurn(_ body: () async throws -> Void, late: (ExecutionResult) -> Void) async throws {
        let turns = request.language == .python ? runtime.pythonTurns : runtime.javascriptTurns
        switch await turns.acquire(until: budget.guestDeadline) {
        case .full:
            let reason = "Too many \(request.language.rawValue) calls of session \(record.id) wait for their turn"
            throw SessionError.overloaded(reason: reason, retryAfter: 1)
        case .timedOut:
            let vm = try await service.lease(runtime)
            late(notRun(vm: vm, while: "another \(request.language.rawValue) call of the session was running"))
        case .granted:
            do {
                try await body()
                await turns.release()
            } catch {
                await turns.release()
                throw error
            }
        }
    }

    private func start(answering promise: EventLoopPromise<ExecutionResult>) async throws {
        let vm = try await service.lease(runtime)
        let agent: AgentConnection?
        do {
            agent = try await vm.agent(within: .until(budget.guestDeadline))
        } catch let error as MicroVMError {
            throw SessionError.vmUnavailable(reason: error.description)
        }
        guard let agent else {
            promise.succeed(notRun(vm: vm, while: "the microVM was starting"))
            return
        }
        let started = ContinuousClock.now
        let run = agent.execute(
            request.language.guestLanguage,
            source: Array(request.source.utf8),
            timeout: budget.guestDeadline - started
        )
        run.setDeadline(.until(budget.hostDeadline))
        do {
            try await follow(run, vm: vm, agent: agent, started: started, promise: promise)
        } catch {
            // Only the VM's end breaks the stream of events.
            promise.succeed(lost(vm: vm, started: started, error: error))
        }
    }

    private func follow(
        _ run: AgentExecution,
        vm: MicroVM,
        agent: AgentConnection,
        started: ContinuousClock.Instant,
        promise: EventLoopPromise<ExecutionResult>
    ) async throws {
        var answered = false
        for try await event in run.events {
            switch event {
            case .output(let channel, let bytes):
                if !answered { try await keep(bytes, of: channel) }
                run.consumed(bytes.count)
            case .exited(let report):
                promise.succeed(result(of: report, vm: vm, started: started))
            case .refused(let refusal) where refusal.code == .noInterpreter:
                promise.fail(SessionError.noInterpreter(request.language))
            case .refused(let refusal):
                promise.fail(SessionError.vmUnavailable(reason: refusal.message))
            case .deadline where !answered:
                answered = true
                promise.succeed(overdue(vm: vm, started: started))
                run.cancel(.timeout)
                run.setDeadline(Self.silenceLimit)
            case .deadline:
                vm.kill(reason: "Its agent did not end an execution that was over")
            }
        }
    }

    private func keep(_ bytes: [UInt8], of channel: AgentProtocol.Channel) async throws {
        guard channel != .results else { return results.append(bytes) }
        let spool = channel == .stderr ? stderr : stdout
        if spool.fitsInMemory(bytes.count) {
            spool.append(bytes[...])
        } else {
            try await NIOThreadPool.singleton.runIfActive { spool.append(bytes[...]) }
        }
    }
}

// MARK: - Results

extension Execution {
    private func makeResult(
        _ outcome: ExecutionOutcome,
        code: Int,
        vm: MicroVM,
        executionTime: Duration,
        note: String?
    ) -> ExecutionResult {
        results.finish()
        return ExecutionResult(
            session: record.id,
            vmID: vm.id,
            vmStartedAt: vm.startedAt,
            language: request.language,
            createdAt: createdAt,
            outcome: outcome,
            exitCode: code,
            stdout: stdout,
            stderr: stderr,
            results: results,
            note: note,
            executionTime: executionTime.seconds,
            restore: vm.restore.map(RestoreRecord.init)
        )
    }

    private func result(of report: ExitReport, vm: MicroVM, started: ContinuousClock.Instant) -> ExecutionResult {
        var notes: [String] = []
        if report.outcome == .timedOut {
            // Time that was not spent running was spent waiting for an interpreter that is being restarted.
            notes.append(
                timeoutNote + (report.wallTime == 0 ? " before the interpreter was ready; the code did not run" : "")
            )
        }
        if report.flags.contains(.outOfMemory) {
            notes.append("The microVM ran out of memory (\(record.memoryMB) MB) and a process was killed")
        }
        if report.flags.contains(.processLimit) { notes.append("The microVM's limit on processes was reached") }
        if report.flags.contains(.stateLost) { notes.append("The interpreter was restarted; its variables are lost") }
        var result = makeResult(
            outcome(of: report),
            code: exitCode(of: report),
            vm: vm,
            executionTime: .now - started,
            note: notes.isEmpty ? nil : notes.joined(separator: "\n")
        )
        result.signal = report.outcome == .signaled ? Int(report.code) : nil
        result.cpuTime = Double(report.cpuTime) / 1e9
        result.stateLost = report.flags.contains(.stateLost)
        result.stdoutDroppedBytes += Int(clamping: report.droppedStdout)
        result.stderrDroppedBytes += Int(clamping: report.droppedStderr)
        return result
    }

    private func outcome(of report: ExitReport) -> ExecutionOutcome {
        switch report.outcome {
        case .exited: .exited
        case .signaled: .signaled
        case .timedOut: .timedOut
        case .cancelled: .cancelled
        }
    }

    private func exitCode(of report: ExitReport) -> Int {
        switch report.outcome {
        case .exited: Int(report.code)
        case .signaled: 128 + Int(report.code)
        case .timedOut: 124
        case .cancelled: 130
        }
    }

    private var timeoutNote: String { "Execution timed out after \(Int(request.timeout.seconds))s" }

    private func overdue(vm: MicroVM, started: ContinuousClock.Instant) -> ExecutionResult {
        let note = timeoutNote + "; the microVM has not confirmed the end of the code yet"
        return makeResult(.timedOut, code: 124, vm: vm, executionTime: .now - started, note: note)
    }

    private func notRun(vm: MicroVM, while reason: String) -> ExecutionResult {
        let note = timeoutNote + " while \(reason); the code did not run"
        return makeResult(.timedOut, code: 124, vm: vm, executionTime: .zero, note: note)
    }

    private func lost(vm: MicroVM, started: ContinuousClock.Instant, error: any Error) -> ExecutionResult {
        let note = "The microVM was lost while the code ran. \(error). The next call gets a new one."
        var result = makeResult(.vmLost, code: -1, vm: vm, executionTime: .now - started, note: note)
        result.stateLost = true
        return result
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

extension TimeAmount {
    /// The time that is left until an instant; zero when it has passed.
    fileprivate static func until(_ deadline: ContinuousClock.Instant) -> TimeAmount {
        let left = max(.zero, deadline - .now)
        return .nanoseconds(left.components.seconds * 1_000_000_000 + left.components.attoseconds / 1_000_000_000)
    }
}
