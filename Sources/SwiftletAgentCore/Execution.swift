// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Glibc

/// Code on its way in, or running.
final class Execution {
    enum State {
        /// Source is arriving.
        case receiving
        /// Waits for the guest to be prepared, or its interpreter to be ready.
        case waiting
        case running
        /// It is over; its output is being sent.
        case ending
    }

    let request: ExecuteRequest
    let stream: HostStream
    let arrived = monotonicTime()
    var state = State.receiving
    var source: [UInt8] = []
    var received = ReceiveWindow()
    var deadline: EventLoop.Timer?
    /// Why it is being ended, if it is.
    var cancelReason: CancelReason?
    var started: UInt64 = 0
    var eventsBefore = Cgroups.Events()
    /// Bytes written between two calls that could not be kept for this one.
    var dropped: (stdout: UInt64, stderr: UInt64) = (0, 0)
    /// How to end it now; set while it runs.
    var stop: () -> Void = {}

    init(request: ExecuteRequest, stream: HostStream) {
        self.request = request
        self.stream = stream
        source.reserveCapacity(Int(request.sourceLength))
    }

    /// The report of an end; a cancellation's name goes before whatever the process died of.
    func report(code: Int32?, signal: Int32, processorTime: UInt64) -> ExitReport {
        let outcome: ExitReport.Outcome
        let value: Int32
        switch cancelReason {
        case .timeout: (outcome, value) = (.timedOut, 124)
        case .cancelled: (outcome, value) = (.cancelled, 130)
        case nil: (outcome, value) = code.map { (.exited, $0) } ?? (.signaled, signal)
        }
        let wallTime = started == 0 ? 0 : monotonicTime() - started
        return ExitReport(
            outcome: outcome,
            code: value,
            wallTime: wallTime,
            cpuTime: processorTime,
            droppedStdout: dropped.stdout,
            droppedStderr: dropped.stderr
        )
    }
}
