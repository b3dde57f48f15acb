// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import Glibc
import Testing

/// Executions of bash: `Agent`, `ShellPool`, `Programs`, `OutputPump` and `Execution` together, on a host.
@Suite(.serialized, .timeLimit(.minutes(5)), .ownThread) struct BashExecutionTests {
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
        try agent.expectSilence(stream: stream)
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

    @Test func `a shell that was started ahead runs one script, and another takes its place`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        #expect(eventually { agent.children.count == 2 })
        let before = Set(agent.children.keys)
        let used = try #require(Int32(try agent.run("echo $$").text.trimmingCharacters(in: .newlines)))
        #expect(before.contains(used))
        #expect(eventually { agent.children.count == 2 && agent.children[used] == nil })
        let next = try #require(Int32(try agent.run("echo $$").text.trimmingCharacters(in: .newlines)))
        #expect(next != used)
    }

    @Test func `a shell that was killed while it waited fails no call`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        #expect(eventually { agent.children.count == 2 })
        // Stopped, the agent cannot reap the shells before the script is there.
        let process = try #require(agent.pid)
        kill(process, SIGSTOP)
        for pid in agent.children.keys { kill(pid, SIGKILL) }
        #expect(eventually { agent.children.values.allSatisfy { $0 == "Z" } })
        let stream = try agent.start("echo alive")
        kill(process, SIGCONT)
        let output = try agent.finish(stream)
        #expect(output.text == "alive\n")
        #expect(output.report?.code == 0)
    }

    @Test func `a shell waits outside of the programs' directory, which a script may remove`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        #expect(eventually { agent.children.count == 2 })
        for pid in agent.children.keys {
            let path = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/cwd")
            #expect(path == "/")
        }
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

    @Test func `the agent ends a script at its timeout by itself`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let before = ContinuousClock.now
        let report = try #require(try agent.run("sleep 600", timeout: 300).report)
        #expect(ContinuousClock.now - before >= .milliseconds(300))
        #expect(report.outcome == .timedOut)
        #expect(report.code == 124)
    }

    @Test func `a script that is ended keeps the output that it had written`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let stream = try agent.start("echo before; echo error >&2; touch written; sleep 600")
        #expect(eventually { FileManager.default.fileExists(atPath: agent.directory + "/written") })
        try agent.send(Frame(.cancel, stream: stream, payload: [CancelReason.timeout.rawValue]))
        let output = try agent.finish(stream)
        #expect(output.text == "before\n")
        #expect(output.errorText == "error\n")
        #expect(output.report?.outcome == .timedOut)
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
        let gate = try agent.makeGate("gate")
        // A megabyte is more than its pipe holds: it ends only if the agent reads.
        let output = try agent.run("(read < gate; head -c 1000000 /dev/zero; touch ended) & echo started")
        #expect(output.text == "started\n")
        #expect(output.report?.code == 0)
        gate.open()
        #expect(eventually { FileManager.default.fileExists(atPath: agent.directory + "/ended") })
        #expect(eventually { agent.children.count == 2 && !agent.children.values.contains("Z") })
    }

    @Test func `processor time is counted, that of awaited children too, and waiting is not`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let idle = try #require(try agent.run("sleep 0.5").report)
        let busy = try #require(try agent.run("bash -c 'for ((n = 0; n < 300000; n++)); do :; done'; true").report)
        #expect(idle.wallTime >= 500_000_000)
        #expect(idle.cpuTime < 250_000_000)
        #expect(busy.cpuTime > 2 * idle.cpuTime)
    }

    // MARK: Credit

    @Test func `output stops at its credit, does not block other calls, and continues with more credit`() throws {
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
        try agent.expectSilence(stream: stream)
        #expect(try agent.run("echo beside").text == "beside\n")
        try agent.grant(1_000, to: stream)
        let more = try agent.next(stream: stream)
        #expect(more.payload.count - 1 == 1_000)
        try agent.expectSilence(stream: stream)
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
        try agent.expectSilence(stream: stream)
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
        Frame(.execute, stream: 3, payload: [2, 0, 0]), Frame(.prepare, payload: [16, 0, 0, 0, 1]),
        Frame(.prepare, payload: AgentHarness.identity().payload.dropLast()),
        Frame(.prepare, payload: AgentHarness.identity().payload + [0]),
        Frame(.cancel, stream: 3, payload: []), Frame(.credit, stream: 3, payload: [1, 2]),
    ])
    func `a frame that a host must not send ends the agent with an error on the console`(frame: Frame) throws {
        let agent = try AgentHarness()
        try agent.send(frame)
        #expect(try agent.waitForExit().console.contains("FATAL The host broke the protocol"))
        #expect(try agent.waitForExit().code == 1)
    }

    @Test(
        arguments: [
            [255, 255, 255, 255, 0, 0, 0, 0, 4, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0],
        ] as [[UInt8]]
    )
    func `bytes of an invalid frame header end the agent with an error on the console`(bytes: [UInt8]) throws {
        let agent = try AgentHarness()
        try agent.send(raw: bytes)
        #expect(try agent.waitForExit().console.contains("FATAL The host broke the protocol"))
        #expect(try agent.waitForExit().code == 1)
    }

    @Test func `half a frame waits for the rest, and does nothing until then`() throws {
        let agent = try AgentHarness()
        let frame = Frame(.ping, payload: Array("12345678".utf8)).encoded()
        try agent.send(raw: Array(frame.prefix(15)))
        #expect(eventually { agent.children.count == 2 })
        try agent.send(raw: Array(frame.dropFirst(15)))
        #expect(try agent.next(stream: 0) == Frame(.pong, payload: Array("12345678".utf8)))
    }

    @Test func `a connection that ends within a frame leaves no process`() throws {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        let stream = try agent.start("(sleep 600 & echo $!); setsid sleep 600 & echo $!; sleep 600")
        var text = ""
        while text.filter({ $0 == "\n" }).count < 2 {
            text += String(decoding: try agent.next(stream: stream).payload.dropFirst(), as: UTF8.self)
        }
        let pids = text.split(separator: "\n").compactMap { pid_t($0) } + agent.children.keys
        #expect(pids.count >= 4)
        try agent.send(raw: Array(Frame(.ping, payload: Array("12345678".utf8)).encoded().prefix(15)))
        // 128 and SIGKILL: it did not crash before.
        #expect(try agent.end().code == 128 + SIGKILL)
        #expect(pids.allSatisfy { kill($0, 0) != 0 })
    }

    @Test func `source beyond the announced length, and beyond its credit, ends the agent`() throws {
        let agent = try AgentHarness()
        let request = ExecuteRequest(language: .bash, timeout: 0, sourceLength: 2)
        try agent.send(Frame(.execute, stream: 1, payload: request.payload))
        try agent.send(Frame(.data, stream: 1, payload: [Channel.source.rawValue] + Array("abc".utf8)))
        #expect(try agent.waitForExit().console.contains("Unexpected frame data on stream 1"))
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
