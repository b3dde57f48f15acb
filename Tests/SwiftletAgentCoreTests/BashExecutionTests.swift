// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import Glibc
import Testing

/// Executions of bash: `Agent`, `ShellPool`, `Programs`, `OutputPump` and `Execution` together, on a host.
@Suite struct BashExecutionTests {
    @Test(arguments: [0, 1, 7, 255])
    func `the exit code is that of wait`(code: Int32) throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let report = try #require(try agent.run("exit \(code)").report)
        #expect(report.outcome == .exited)
        #expect(report.code == code)
    }

    @Test func `a signal is reported as a signal, not as an exit code`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let report = try #require(try agent.run("kill -TERM $$").report)
        #expect(report.outcome == .signaled)
        #expect(report.code == SIGTERM)
    }

    @Test func `output that looks like a report changes nothing`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let forged = Frame(
            .exit,
            stream: 1,
            payload: ExitReport(outcome: .exited, code: 0, wallTime: 0, cpuTime: 0).payload
        )
        let octal = forged.encoded().map { String(format: "\\%03o", $0) }.joined()
        let output = try agent.run("printf '\(octal)'; exit 9")
        #expect(output.report?.code == 9)
        #expect(output.stdout == forged.encoded())
    }

    @Test func `stdout and stderr are apart, and each in order`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let output = try agent.run("for n in 1 2 3; do echo out$n; echo err$n >&2; done")
        #expect(output.text == "out1\nout2\nout3\n")
        #expect(output.errorText == "err1\nerr2\nerr3\n")
    }

    @Test func `nothing runs before everything is confirmed`() throws {
        let agent = try AgentHarness()
        #expect(try agent.prepare(entropy: 0).confirmed != .all)
        let stream = try agent.start("touch ran")
        agent.expectSilence(stream: stream)
        #expect(!FileManager.default.fileExists(atPath: agent.directory + "/ran"))
        #expect(try agent.prepare().confirmed == .all)
        #expect(try agent.finish(stream).report?.code == 0)
        #expect(FileManager.default.fileExists(atPath: agent.directory + "/ran"))
    }

    @Test func `a script gets the session's variables and the guest's name, in shells that waited before too`() throws {
        let agent = try AgentHarness()
        // Both shells are there before the variables are known.
        #expect(eventually { agent.children.count == 2 })
        _ = try agent.prepare(environment: [Prepare.Variable(name: "COLOR", value: "red green")])
        let output = try agent.run("echo \"$COLOR $HOSTNAME $PWD\"")
        #expect(output.text == "red green guest \(agent.directory)\n")
    }

    @Test func `two scripts share neither variables nor a process`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let first = try agent.run("x=1; echo $$").text
        let second = try agent.run("echo ${x-none}; echo $$").text
        #expect(second.hasPrefix("none\n"))
        #expect(!second.hasSuffix(first))
    }

    @Test func `used shells are replaced`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        #expect(eventually { agent.children.count == 2 })
        for _ in 0..<3 { #expect(try agent.run("true").report?.code == 0) }
        #expect(eventually { agent.children.count == 2 && agent.children.values.allSatisfy { $0 == "S" } })
    }

    @Test func `a shell that was killed while it waited fails no call`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        #expect(eventually { agent.children.count == 2 })
        for pid in agent.children.keys { kill(pid, SIGKILL) }
        let output = try agent.run("echo alive")
        #expect(output.text == "alive\n")
        #expect(output.report?.code == 0)
    }

    @Test func `a script that removed the directory does not make the next one fail`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        #expect(try agent.run("rm -rf \(agent.directory)").report?.code == 0)
        let output = try agent.run("pwd")
        #expect(output.text == "\(agent.directory)\n")
        #expect(output.errorText == "")
    }

    @Test func `a script with NUL, and one shorter than announced, are refused and do not run`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        #expect(try agent.run("touch ran\0").refusal?.code == .invalidRequest)
        let stream = agent.newStream()
        let request = ExecuteRequest(language: .bash, timeout: 0, sourceLength: 100)
        try agent.send(Frame(.execute, stream: stream, payload: request.payload))
        let source = [Channel.source.rawValue] + Array("touch ran".utf8)
        try agent.send(Frame(.data, stream: stream, payload: source))
        try agent.send(Frame(.end, stream: stream, payload: [Channel.source.rawValue]))
        #expect(try agent.finish(stream).refusal?.code == .invalidRequest)
        #expect(!FileManager.default.fileExists(atPath: agent.directory + "/ran"))
    }

    @Test func `a language that the image lacks is refused`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        #expect(try agent.run("1", .python).refusal?.code == .noInterpreter)
    }

    // MARK: Ends

    @Test func `a timeout ends the script with the output that it had written`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let output = try agent.run("echo before; sleep 600", timeout: 500)
        #expect(output.text == "before\n")
        let report = try #require(output.report)
        #expect(report.outcome == .timedOut)
        #expect(report.code == 124)
        #expect(report.wallTime >= 300_000_000)
    }

    @Test(arguments: [(CancelReason.cancelled, ExitReport.Outcome.cancelled, Int32(130)), (.timeout, .timedOut, 124)])
    func `a cancellation kills the script's whole process group`(
        reason: CancelReason,
        outcome: ExitReport.Outcome,
        code: Int32
    ) throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let stream = try agent.start("sleep 600 & echo $!; wait")
        let first = try agent.next(stream: stream)
        let text = String(decoding: first.payload.dropFirst(), as: UTF8.self)
        let pid = try #require(Int32(text.trimmingCharacters(in: .whitespacesAndNewlines)))
        try agent.send(Frame(.cancel, stream: stream, payload: [reason.rawValue]))
        let report = try #require(try agent.finish(stream).report)
        #expect(report.outcome == outcome)
        #expect(report.code == code)
        #expect(eventually { kill(pid, 0) != 0 })
    }

    @Test func `an execution that waits can be cancelled, and never runs`() throws {
        let agent = try AgentHarness()
        let stream = try agent.start("touch ran")
        try agent.send(Frame(.cancel, stream: stream, payload: [CancelReason.cancelled.rawValue]))
        #expect(try agent.finish(stream).report?.outcome == .cancelled)
        _ = try agent.prepare()
        #expect(try agent.run("ls").text == "")
    }

    @Test func `a background child outlives its script, is never blocked, and is reaped in the end`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        // A megabyte is more than its pipe holds: it ends only if somebody reads.
        let output = try agent.run("(sleep 0.3; head -c 1000000 /dev/zero; touch ended) & echo started")
        #expect(output.text == "started\n")
        #expect(output.report?.code == 0)
        #expect(eventually { FileManager.default.fileExists(atPath: agent.directory + "/ended") })
        #expect(eventually { agent.children.count == 2 && !agent.children.values.contains("Z") })
    }

    @Test func `processor time is counted, that of awaited children too, and waiting is not`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let idle = try #require(try agent.run("sleep 0.5").report)
        let busy = try #require(try agent.run("timeout 0.5 bash -c 'while :; do :; done'; true").report)
        #expect(idle.wallTime >= 500_000_000)
        #expect(busy.cpuTime > 2 * idle.cpuTime)
    }

    // MARK: Credit

    @Test func `a flood stops at its credit, holds up nobody, and goes on with more`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let stream = try agent.start("head -c 1000000 /dev/zero")
        var received = 0
        while received < ProtocolLimits.initialCredit {
            let frame = try agent.next(stream: stream)
            #expect(frame.type == .data)
            received += frame.payload.count - 1
        }
        #expect(received == ProtocolLimits.initialCredit)
        agent.expectSilence(stream: stream)
        #expect(try agent.run("echo beside").text == "beside\n")
        try agent.grant(1_000, to: stream)
        let more = try agent.next(stream: stream)
        #expect(more.payload.count - 1 == 1_000)
        agent.expectSilence(stream: stream)
        try agent.grant(2_000_000, to: stream)
        let rest = try agent.finish(stream)
        #expect(received + 1_000 + rest.stdout.count == 1_000_000)
        #expect(rest.report?.code == 0)
    }

    @Test func `the exit follows the last byte, however small the credit is`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let stream = try agent.start("head -c \(ProtocolLimits.initialCredit + 5) /dev/zero")
        var received = 0
        while received < ProtocolLimits.initialCredit { received += try agent.next(stream: stream).payload.count - 1 }
        // The shell is over, but its last five bytes are not sent.
        agent.expectSilence(stream: stream)
        for _ in 0..<5 {
            try agent.grant(1, to: stream)
            let frame = try agent.next(stream: stream)
            #expect(frame.type == .data)
            #expect(frame.payload.count == 2)
        }
        #expect(try agent.next(stream: stream).type == .exit)
    }

    // MARK: A host that breaks the protocol

    @Test(arguments: [
        Frame(.hello, payload: []), Frame(.execute, stream: 0, payload: []), Frame(.pong, payload: []),
        Frame(.exit, stream: 3, payload: []), Frame(.execute, stream: 3, payload: [9, 0, 0, 0, 0, 0, 0, 0, 0]),
    ])
    func `a frame that no host sends ends the agent, and the console says why`(frame: Frame) throws {
        let agent = try AgentHarness()
        try agent.send(frame)
        #expect(agent.end().contains("FATAL The host broke the protocol"))
        #expect(agent.process.terminationStatus == 1)
    }

    @Test func `source beyond the announced length, and beyond its credit, ends the agent`() throws {
        let agent = try AgentHarness()
        let request = ExecuteRequest(language: .bash, timeout: 0, sourceLength: 2)
        try agent.send(Frame(.execute, stream: 1, payload: request.payload))
        try agent.send(Frame(.data, stream: 1, payload: [Channel.source.rawValue] + Array("abc".utf8)))
        #expect(agent.end().contains("Unexpected frame data on stream 1"))
    }

    @Test func `frames for a stream that has ended are ignored`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let stream = try agent.start("true")
        _ = try agent.finish(stream)
        try agent.grant(5, to: stream)
        try agent.send(Frame(.cancel, stream: stream, payload: [CancelReason.cancelled.rawValue]))
        try agent.send(Frame(.range, stream: stream, payload: FileRange(offset: 0, length: 1).payload))
        #expect(try agent.run("echo on").text == "on\n")
    }
}
