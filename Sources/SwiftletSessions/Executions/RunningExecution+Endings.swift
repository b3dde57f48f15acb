// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import SwiftletCore

/// What the record says about the end of an execution.
extension RunningExecution {
    private var timeoutNote: String {
        "Execution timed out after \(Int((request.timeout ?? Limits.longestExecution).seconds))s"
    }

    /// The end that the guest reported.
    func ending(_ report: ExitReport, executionTime: Duration) -> Ending {
        var notes: [String] = []
        if report.outcome == .timedOut {
            // Time that was not spent running was spent waiting for an interpreter that is being restarted.
            notes.append(
                timeoutNote + (report.wallTime == 0 ? " before the interpreter was ready; the code did not run" : "")
            )
        }
        if report.outcome == .cancelled { notes.append(cancellation ?? "The execution was cancelled") }
        if report.flags.contains(.outOfMemory) {
            notes.append("The microVM ran out of memory (\(session.record.memoryMB) MB) and a process was killed")
        }
        if report.flags.contains(.processLimit) { notes.append("The microVM's limit on processes was reached") }
        if report.flags.contains(.stateLost) { notes.append("The interpreter was restarted; its variables are lost") }
        let note = notes.isEmpty ? nil : notes.joined(separator: "\n")
        return .ended { record in
            record.state = Self.state(of: report)
            record.exitCode = Self.exitCode(of: report)
            record.signal = report.outcome == .signaled ? Int(report.code) : nil
            record.note = note
            record.executionTime = executionTime.seconds
            record.cpuTime = Double(report.cpuTime) / 1e9
            record.stateLost = report.flags.contains(.stateLost)
            record.sizes[.stdout, default: .init()].dropped += Int(clamping: report.droppedStdout)
            record.sizes[.stderr, default: .init()].dropped += Int(clamping: report.droppedStderr)
        }
    }

    private static func state(of report: ExitReport) -> ExecutionState {
        switch report.outcome {
        case .exited: .exited
        case .signaled: .signaled
        case .timedOut: .timedOut
        case .cancelled: .cancelled
        }
    }

    private static func exitCode(of report: ExitReport) -> Int {
        switch report.outcome {
        case .exited: Int(report.code)
        case .signaled: 128 + Int(report.code)
        case .timedOut: 124
        case .cancelled: 130
        }
    }

    /// Answers the caller, whose time is over, before the guest has said anything.
    func answerOverdue(executionTime: Duration) {
        var result = ExecutionResult(handle)
        result.record.state = .timedOut
        result.record.exitCode = 124
        result.record.note = timeoutNote + "; the microVM has not confirmed the end of the code yet"
        result.record.executionTime = executionTime.seconds
        succeed(result)
    }

    func notRun(while reason: String) -> Ending {
        let note = timeoutNote + " while \(reason); the code did not run"
        return .ended { record in
            record.state = .timedOut
            record.exitCode = 124
            record.note = note
        }
    }

    /// It was cancelled before any code ran.
    var cancelled: Ending {
        let note = (cancellation ?? "The execution was cancelled") + "; the code did not run"
        return .ended { record in
            record.state = .cancelled
            record.exitCode = 130
            record.note = note
        }
    }

    func lost(started: ContinuousClock.Instant, error: any Error) -> Ending {
        let note = "The microVM was lost while the code ran. \(error). The next call gets a new one."
        let executionTime = (time.now - started).seconds
        return .ended { record in
            record.state = .vmLost
            record.note = note
            record.executionTime = executionTime
            record.stateLost = true
        }
    }
}
