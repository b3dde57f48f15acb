// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import NIOCore
import NIOPosix
import SwiftletStore
import SwiftletVM
import Synchronization

/// An execution between its acceptance and its end: what it has said, who waits for it, and how to end it.
final class LiveExecution: Sendable {
    private enum Phase {
        /// It may stand in a queue for its turn.
        case waiting(leaveQueue: @Sendable () -> Void)
        case running(AgentExecution)
    }

    private struct State {
        var phase = Phase.waiting {}
        /// Why it is to end, in words for its owner.
        var cancellation: String?
    }

    let id: ExecutionID
    let journal: ExecutionJournal
    /// Takes rich results out of what the guest sends.
    let results = Mutex(ResultDecoder())
    private let state = Mutex(State())
    private let answer = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: ExecutionResult.self)

    init(_ record: ExecutionRecord, logs: [ExecutionStream: OutputLog]) {
        id = record.id
        journal = ExecutionJournal(record, logs: logs)
    }

    // MARK: The answer

    /// Waits for what the caller is to be answered: the end, or what there is at the timeout.
    func result() async throws -> ExecutionResult {
        try await answer.futureResult.get()
    }

    /// Answers the caller, unless that was done.
    func succeed(_ result: ExecutionResult) {
        answer.succeed(result)
    }

    /// Answers the caller that nothing ran, unless it was answered.
    func fail(_ error: any Error) {
        answer.fail(error)
    }

    // MARK: Cancellation

    /// Why it is to end; nil while nobody wants that.
    var cancellation: String? { state.withLock { $0.cancellation } }

    /// Ends it: takes it out of its queue, or has the agent end its code.
    func cancel(_ reason: String) {
        let phase = state.withLock { state in
            state.cancellation = state.cancellation ?? reason
            return state.phase
        }
        journal.unpace()
        switch phase {
        case .waiting(let leaveQueue): leaveQueue()
        case .running(let run): end(run)
        }
    }

    /// Has the agent end the code; an agent that does not is found out at the deadline.
    private func end(_ run: AgentExecution) {
        run.cancel(.cancelled)
        run.setDeadline(Execution.silenceLimit)
    }

    /// It is about to wait for its turn.
    func queues(leaveQueue: @escaping @Sendable () -> Void) {
        let isCancelled = state.withLock { state in
            state.phase = .waiting(leaveQueue: leaveQueue)
            return state.cancellation != nil
        }
        if isCancelled { leaveQueue() }
    }

    /// Its code was sent to the agent.
    func runs(_ run: AgentExecution) {
        let isCancelled = state.withLock { state in
            state.phase = .running(run)
            return state.cancellation != nil
        }
        if isCancelled { end(run) }
    }
}
