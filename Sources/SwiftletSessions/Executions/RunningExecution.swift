// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import NIOCore
import NIOPosix
import SwiftletCore
import Synchronization

/// An execution from its acceptance to its true end: then the session's next call finds the interpreter free, or gets a new VM.
///
/// It decides how the execution ends; callers, streams and pollers read its ``handle``.
final class RunningExecution: Sendable {
    /// How an execution ended.
    enum Ending: Sendable {
        /// What its record is to say.
        case ended(@Sendable (inout ExecutionRecord) -> Void)
        /// Nothing ran.
        case refused(SessionError)
    }

    private enum Phase {
        /// It may wait for the turn of its interpreter. Becomes `starting`.
        case queued(leaveQueue: @Sendable () -> Void)
        /// It waits for its VM. Becomes `running`.
        case starting
        /// Its code was sent to the agent. Terminal: the end is the record's.
        case running(any GuestExecution)
    }

    private struct State {
        var phase = Phase.queued {}
        /// Why it is to end, in words for its owner.
        var cancellation: String?
    }

    /// How long an agent may stay silent after the code's time is over.
    static let silenceLimit: TimeAmount = .seconds(5)

    let request: ExecutionRequest
    let session: SessionEntry
    let sessions: SessionService
    let handle: ExecutionHandle
    let time: any TimeSource
    /// Takes rich results out of what the guest sends.
    let results = Mutex(ResultDecoder())
    private let state = Mutex(State())
    private let ticket = AsyncSemaphore.Ticket()
    private let turn = Mutex<AsyncSemaphore.Outcome?>(nil)
    private let answer = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: ExecutionResult.self)

    var id: ExecutionID { handle.id }

    init(
        _ request: ExecutionRequest,
        in session: SessionEntry,
        of sessions: SessionService,
        handle: ExecutionHandle,
        time: any TimeSource
    ) {
        self.request = request
        self.session = session
        self.sessions = sessions
        self.handle = handle
        self.time = time
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

    /// Why it is to end; nil while it may go on.
    var cancellation: String? { state.withLock { $0.cancellation } }

    /// Ends it: takes it out of its queue, or has the agent end its code.
    func cancel(_ reason: String) {
        let phase = state.withLock { state in
            state.cancellation = state.cancellation ?? reason
            return state.phase
        }
        handle.unpace()
        switch phase {
        case .queued(let leaveQueue): leaveQueue()
        case .starting: break
        case .running(let run): end(run)
        }
    }

    /// Has the agent end the code; an agent that does not is found out at the deadline.
    private func end(_ run: any GuestExecution) {
        run.cancel(.cancelled)
        run.setDeadline(Self.silenceLimit)
    }

    /// The turns of the interpreter that it needs; nil where calls run beside each other.
    var turns: AsyncSemaphore? {
        switch request.language {
        case .python: session.active.pythonTurns
        case .javascript: session.active.javascriptTurns
        case .bash: nil
        }
    }

    /// Takes its place among the calls that need the same interpreter. Calls run in the order in which they do this.
    func takePlace() {
        guard let turns else { return }
        enterQueue { [ticket] in turns.withdraw(ticket) }
        let outcome = turns.enqueue(ticket)
        turn.withLock { $0 = outcome }
    }

    /// Gives up what ``takePlace()`` took, when it will not run.
    func leavePlace() {
        guard let turns else { return }
        if turn.withLock({ $0 }) == .acquired { turns.release() } else { turns.withdraw(ticket) }
    }

    /// Waits for its turn, after ``takePlace()``.
    func waitForTurn(in turns: AsyncSemaphore, until deadline: ContinuousClock.Instant) async -> AsyncSemaphore.Outcome
    {
        if let outcome = turn.withLock({ $0 }) { return outcome }
        return await turns.wait(ticket, until: deadline)
    }

    private func enterQueue(leaveQueue: @escaping @Sendable () -> Void) {
        let isCancelled = state.withLock { state in
            state.phase = .queued(leaveQueue: leaveQueue)
            return state.cancellation != nil
        }
        if isCancelled { leaveQueue() }
    }

    /// It has its turn, and is about to wait for its VM.
    func leaveQueue() {
        state.withLock { $0.phase = .starting }
    }

    /// Its code was sent to the agent.
    func began(_ run: any GuestExecution) {
        let isCancelled = state.withLock { state in
            state.phase = .running(run)
            return state.cancellation != nil
        }
        if isCancelled { end(run) }
    }
}
