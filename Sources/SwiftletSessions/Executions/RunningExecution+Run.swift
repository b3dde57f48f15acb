// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import NIOCore
import SwiftletAccounts
import SwiftletCore
import SwiftletVM
import Synchronization

/// The way of an execution: its turn, its VM, its code, its end.
extension RunningExecution {
    /// Runs to the end. The caller is answered on the way when its time is over first.
    func run() async -> Ending {
        do {
            if let turns { return try await runInTurn(of: turns) }
            return try await start()
        } catch let error as SessionError {
            return .refused(error)
        } catch let error as AdmissionError {
            return .refused(.admission(error))
        } catch {
            return .refused(.vmUnavailable(reason: "\(error)"))
        }
    }

    private func runInTurn(of turns: AsyncSemaphore) async throws -> Ending {
        switch await waitForTurn(in: turns, until: queueDeadline) {
        case .full:
            let reason = "Too many \(request.language.rawValue) calls of session \(session.id) wait for their turn"
            throw SessionError.overloaded(reason: reason, retryAfter: 1)
        case .withdrawn:
            return cancelled
        case .cancelled:
            throw SessionError.shuttingDown
        case .timedOut:
            // No VM is spawned for code that does not run.
            if let vm = await session.active.currentVM { record(vm) }
            return notRun(while: "another \(request.language.rawValue) call of the session was running")
        case .acquired:
            defer { turns.release() }
            return try await start()
        }
    }

    /// Until when it may wait for its turn.
    private var queueDeadline: ContinuousClock.Instant {
        request.mode == .async ? request.receivedAt + Limits.longestExecution : budget.guestDeadline
    }

    /// Without one the code's time ends with its VM, whose life may be made longer meanwhile.
    private var timeout: Duration { request.timeout ?? Limits.longestExecution }

    /// Where no caller waits at a socket, the code's time begins when the code does.
    private var budget: TimeBudget {
        switch request.mode {
        case .sync: TimeBudget(receivedAt: request.receivedAt, timeout: timeout)
        case .stream: TimeBudget(startedAt: request.receivedAt, timeout: timeout)
        case .async: TimeBudget(startedAt: time.now, timeout: timeout)
        }
    }

    private func start() async throws -> Ending {
        leaveQueue()
        guard cancellation == nil else { return cancelled }
        let vm = try await sessions.lease(session.active)
        let budget = budget
        let agent: (any GuestAgent)?
        do {
            agent = try await vm.agent(until: budget.guestDeadline)
        } catch let error as MicroVMError {
            throw SessionError.vmUnavailable(reason: error.description)
        }
        record(vm)
        guard let agent else { return notRun(while: "the microVM was starting") }
        guard cancellation == nil else { return cancelled }
        let started = time.now
        handle.update {
            $0.state = .running
            $0.startedAt = time.date
        }
        let run = agent.execute(
            request.language.guestLanguage,
            source: Array(request.source.utf8),
            timeout: budget.guestDeadline - started
        )
        run.setDeadline(TimeAmount(max(.zero, budget.hostDeadline - started)))
        began(run)
        do {
            return try await readEvents(of: run, vm: vm, started: started, deadline: budget.hostDeadline)
        } catch let error as SessionError {
            throw error
        } catch {
            // Only the VM's end breaks the stream of events.
            record(vm)
            return lost(started: started, error: error)
        }
    }

    private func readEvents(
        of run: any GuestExecution,
        vm: any VirtualMachine,
        started: ContinuousClock.Instant,
        deadline: ContinuousClock.Instant
    ) async throws -> Ending {
        var isOverdue = false
        for try await event in run.events {
            switch event {
            case .output(let channel, let bytes):
                try await append(bytes, of: channel)
                handle.advanced()
                await handle.waitForSubscribers(until: deadline) { vm.end != nil }
                run.consumed(bytes.count)
            case .exited(let report):
                record(vm)
                return ending(report, executionTime: time.now - started)
            case .refused(let refusal) where refusal.code == .noInterpreter:
                throw SessionError.noInterpreter(request.language)
            case .refused(let refusal):
                throw SessionError.vmUnavailable(reason: refusal.message)
            case .deadline where cancellation != nil:
                vm.kill(reason: "Its agent did not end an execution that was cancelled")
            case .deadline where !isOverdue:
                isOverdue = true
                record(vm)
                answerOverdue(executionTime: time.now - started)
                run.cancel(.timeout)
                run.setDeadline(Self.silenceLimit)
            case .deadline:
                vm.kill(reason: "Its agent did not end an execution that was over")
            }
        }
        throw MicroVMError.ended(vm.end ?? .killed(reason: "The server shut down"))
    }

    private func append(_ bytes: [UInt8], of channel: AgentProtocol.Channel) async throws {
        switch channel {
        case .stdout: try await handle.log(of: .stdout).append(bytes[...])
        case .source, .content: break  // The connection lets neither through on an execution's stream.
        case .stderr: try await handle.log(of: .stderr).append(bytes[...])
        case .results:
            for bundle in results.withLock({ $0.append(bytes) }) { try await append(bundle: bundle) }
        }
    }

    private func append(bundle: String) async throws {
        let line = Array(bundle.utf8) + [UInt8(ascii: "\n")]
        guard !(try await handle.log(of: .results).appendWhole(line)) else { return }
        handle.update { $0.sizes[.results, default: .init()].dropped += 1 }
    }

    /// Records in which VM the code runs.
    private func record(_ vm: any VirtualMachine) {
        let restore = vm.restore.map(RestoreRecord.init)
        handle.update {
            $0.vmID = vm.id
            $0.vmStartedAt = vm.startedAt
            $0.restore = restore
        }
    }
}

extension RestoreRecord {
    fileprivate init(_ restore: VMRestore) {
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
