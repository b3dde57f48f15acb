// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import NIOCore
import Synchronization

/// An agent that answers as a test tells it; left alone, every execution ends with exit code 0 at once.
final class FakeAgent: GuestAgent {
    typealias Answer = @Sendable (FakeExecution) -> Void

    private struct State {
        var answer: Answer = { $0.exit() }
        var executions: [FakeExecution] = []
        var files: [FakeFile] = []
    }

    private let state = Mutex(State())

    /// All executions, in the order in which they were sent.
    var executions: [FakeExecution] { state.withLock { $0.executions } }
    var files: [FakeFile] { state.withLock { $0.files } }

    /// What is done with each further execution.
    func answer(_ answer: @escaping Answer) {
        state.withLock { $0.answer = answer }
    }

    /// Lets executions run until the test ends them.
    func holdExecutions() {
        answer { _ in }
    }

    /// Waits until so many executions were sent.
    func executions(atLeast count: Int) async -> [FakeExecution] {
        while executions.count < count { await Task.yield() }
        return executions
    }

    func execute(_ language: GuestLanguage, source: [UInt8], timeout: Duration) -> any GuestExecution {
        let execution = FakeExecution(language, source: String(decoding: source, as: UTF8.self), timeout: timeout)
        let answer = state.withLock { state in
            state.executions.append(execution)
            return state.answer
        }
        answer(execution)
        return execution
    }

    func open(_ request: FileRequest) -> any GuestFile {
        let file = FakeFile(request)
        state.withLock { $0.files.append(file) }
        return file
    }

    /// The VM is lost: all that is open ends with an error.
    func breakOff(_ error: any Error) {
        let (executions, files) = state.withLock { ($0.executions, $0.files) }
        for execution in executions { execution.breakOff(error) }
        for file in files { file.breakOff(error) }
    }
}

/// Code that a test ends.
final class FakeExecution: GuestExecution {
    let language: GuestLanguage
    let source: String
    let timeout: Duration
    let events: AsyncThrowingStream<AgentExecution.Event, any Error>
    private let continuation: AsyncThrowingStream<AgentExecution.Event, any Error>.Continuation
    private let state = Mutex((cancellations: [CancelReason](), consumed: 0))

    init(_ language: GuestLanguage, source: String, timeout: Duration) {
        self.language = language
        self.source = source
        self.timeout = timeout
        (events, continuation) = AsyncThrowingStream.makeStream()
    }

    var cancellations: [CancelReason] { state.withLock { $0.cancellations } }

    func print(_ text: String) {
        continuation.yield(.output(.stdout, Array(text.utf8)))
    }

    func exit(_ code: Int32 = 0, _ outcome: ExitReport.Outcome = .exited, flags: ExitReport.Flags = []) {
        let report = ExitReport(outcome: outcome, code: code, flags: flags, wallTime: 1_000, cpuTime: 1_000)
        continuation.yield(.exited(report))
        continuation.finish()
    }

    func refuse(_ code: ExecutionRefusal.Code, _ message: String) {
        continuation.yield(.refused(ExecutionRefusal(code: code, message: message)))
        continuation.finish()
    }

    /// The host's time limit has passed.
    func reachDeadline() {
        continuation.yield(.deadline)
    }

    func breakOff(_ error: any Error) {
        continuation.finish(throwing: error)
    }

    func cancel(_ reason: CancelReason) {
        state.withLock { $0.cancellations.append(reason) }
        if reason == .cancelled { exit(130, .cancelled) }
    }

    func consumed(_ bytes: Int) {
        state.withLock { $0.consumed += bytes }
    }

    func setDeadline(_ delay: TimeAmount) {}
}

/// A file that a test fills. It takes no content: a write lasts until its task is cancelled.
final class FakeFile: GuestFile {
    let request: FileRequest
    let events: AsyncThrowingStream<AgentFile.Event, any Error>
    private let continuation: AsyncThrowingStream<AgentFile.Event, any Error>.Continuation
    private let state = Mutex((writes: 0, isCancelled: false))

    init(_ request: FileRequest) {
        self.request = request
        (events, continuation) = AsyncThrowingStream.makeStream()
        continuation.onTermination = { [weak self] termination in
            if case .cancelled = termination { self?.cancel() }
        }
    }

    /// Writes that were begun.
    var writes: Int { state.withLock { $0.writes } }
    var isCancelled: Bool { state.withLock { $0.isCancelled } }

    func send(_ event: AgentFile.Event) {
        continuation.yield(event)
    }

    func breakOff(_ error: any Error) {
        continuation.finish(throwing: error)
    }

    func read(_ range: FileRange) {}

    func write(_ bytes: ByteBuffer) async throws {
        state.withLock { $0.writes += 1 }
        do {
            try await Task.sleep(for: .seconds(3_600))
        } catch {
            cancel()
            throw error
        }
    }

    func finish() {}
    func consumed(_ bytes: Int) {}

    func cancel() {
        state.withLock { $0.isCancelled = true }
    }
}
