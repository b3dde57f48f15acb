// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import Glibc
import Testing

/// `Interpreter` with a program in place of Python that speaks its protocol as each test needs it: its code is Python's own `exec`,
/// with `say(kind, payload)` for whatever an interpreter must not say.
@Suite(.serialized, .timeLimit(.minutes(5)), .ownThread) struct InterpreterTests {
    private static let program = """
        import os, signal, socket, struct, sys
        agent = socket.socket(fileno=3)
        names = {}
        def exactly(count):
            data = b""
            while len(data) < count:
                piece = agent.recv(count - len(data))
                if not piece: os._exit(0)
                data += piece
            return data
        def say(kind, payload=b""):
            agent.sendall(struct.pack("<IB", len(payload) + 1, kind) + payload)
        def done(status=0, code=0, time=5):
            say(3, struct.pack("<BiQ", status, code, time))
        names.update(say=say, done=done, os=os, signal=signal, struct=struct)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say(1)
        while True:
            length, kind = struct.unpack("<IB", exactly(5))
            body = exactly(length - 1)
            if kind == 1:
                names["seed"] = body[4:36].hex()
                names["prepared"] = names.get("prepared", 0) + 1
                say(2)
                continue
            names["answered"] = False
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                exec(body[4:].decode(), names)
                status, code = 0, 0
            except KeyboardInterrupt:
                status, code = 1, 130
            except SystemExit as end:
                status, code = 2, end.code
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.stdout.flush()
            if not names["answered"]: done(status, code)
        """

    private func agent(interruptDelay: Int = 100) throws -> AgentHarness {
        let agent = try AgentHarness(
            python: ["/usr/bin/python3", "-c", Self.program],
            interruptDelay: interruptDelay
        )
        _ = try agent.prepare()
        return agent
    }

    private static var clockTick: Int {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return time.tv_sec * 100 + time.tv_nsec / 10_000_000
    }

    @Test func `variables are there in the next call, and the exit code is the interpreter's`() throws {
        let agent = try agent()
        #expect(try agent.run("x = 41", .python).report?.code == 0)
        let output = try agent.run("print(x + 1); raise SystemExit(3)", .python)
        #expect(output.text == "42\n")
        #expect(output.report?.code == 3)
        #expect(output.report?.cpuTime == 5)
        #expect(output.report?.flags == [])
    }

    @Test func `an interpreter gets its identity once, before its first code`() throws {
        let agent = try agent()
        let seed = String(repeating: "07", count: 32)
        #expect(try agent.run("print(seed, prepared)", .python).text == "\(seed) 1\n")
        #expect(try agent.run("print(prepared)", .python).text == "1\n")
    }

    @Test
    func
        `a successor of a dead interpreter gets another seed, and the call that killed it says that its state is lost`()
        throws
    {
        let agent = try agent()
        let first = try agent.run("print(seed)", .python).text
        let killed = try #require(try agent.run("x = 1; os.kill(os.getpid(), 9)", .python).report)
        #expect(killed.outcome == .signaled)
        #expect(killed.code == SIGKILL)
        #expect(killed.flags.contains(.stateLost))
        let next = try agent.run("print(seed, 'x' in globals())", .python)
        #expect(next.text.hasSuffix(" False\n"))
        #expect(!next.text.hasPrefix(first.trimmingCharacters(in: .newlines)))
        #expect(next.report?.flags == [])
    }

    @Test func `an exit without a last message is that exit, not a success`() throws {
        let agent = try agent()
        let report = try #require(try agent.run("os._exit(5)", .python).report)
        #expect(report.outcome == .exited)
        #expect(report.code == 5)
        #expect(report.flags.contains(.stateLost))
    }

    @Test func `an interpreter that dies between two calls makes the next one say so`() throws {
        let agent = try agent()
        let text = try agent.run("print(os.getpid())", .python).text
        let pid = try #require(Int32(text.trimmingCharacters(in: .newlines)))
        #expect(agent.children[pid] != nil)
        kill(pid, SIGKILL)
        #expect(eventually { agent.children[pid] == nil })
        let report = try #require(try agent.run("pass", .python).report)
        #expect(report.code == 0)
        #expect(report.flags.contains(.stateLost))
        #expect(try agent.run("pass", .python).report?.flags == [])
    }

    @Test(arguments: [
        "say(1)", "say(2)", "say(9)", "say(3)", "say(3, b'x' * 20)", "os.write(3, b'\\xff\\xff\\xff\\xff\\x04')",
    ])
    func `a message out of order, or malformed, costs the interpreter its life and nothing else`(code: String) throws {
        let agent = try agent()
        let report = try #require(try agent.run("\(code); import time; time.sleep(600)", .python).report)
        #expect(report.outcome == .signaled)
        #expect(report.code == SIGKILL)
        #expect(report.flags.contains(.stateLost))
        #expect(try agent.run("print('next')", .python).text == "next\n")
    }

    @Test func `any processor time may be claimed without harm`() throws {
        let agent = try agent()
        let claim = "done(0, 0, 2**64 - 1); answered = True"
        #expect(try agent.run(claim, .python).report?.code == 0)
        #expect(try agent.run(claim, .python).report?.code == 0)
        #expect(try agent.run("os._exit(1)", .python).report?.code == 1)
    }

    @Test func `results arrive with their lengths, before the exit`() throws {
        let agent = try agent()
        let output = try agent.run("say(4, b'{}'); say(4, b'[1]')", .python)
        #expect(output.results == [2, 0, 0, 0] + Array("{}".utf8) + [3, 0, 0, 0] + Array("[1]".utf8))
    }

    @Test func `results beyond the credit wait, then arrive whole`() throws {
        let agent = try agent()
        let output = try agent.run("for n in range(5): say(4, b'x' * 200_000)", .python)
        #expect(output.results.count == 5 * 200_004)
        #expect(output.report?.code == 0)
    }

    @Test func `a timeout interrupts the code, and the state survives`() throws {
        // So long that a busy host does not keep the interpreter from obeying.
        let agent = try agent(interruptDelay: 30_000)
        #expect(try agent.run("x = 7", .python).report?.code == 0)
        let report = try #require(try agent.run("while True: pass", .python, timeout: 300).report)
        #expect(report.outcome == .timedOut)
        #expect(report.code == 124)
        #expect(report.flags == [])
        #expect(try agent.run("print(x)", .python).text == "7\n")
    }

    @Test func `code that ignores the interrupt is killed, and its state is lost`() throws {
        let agent = try agent()
        let code = "signal.signal(signal.SIGINT, signal.SIG_IGN); os.write(1, b'ignored')\nwhile True: pass"
        let stream = try agent.start(code, .python)
        #expect(try agent.next(stream: stream).payload.dropFirst() == Array("ignored".utf8)[...])
        try agent.send(Frame(.cancel, stream: stream, payload: [CancelReason.timeout.rawValue]))
        let report = try #require(try agent.finish(stream).report)
        #expect(report.outcome == .timedOut)
        #expect(report.flags.contains(.stateLost))
        #expect(try agent.run("print(1)", .python).text == "1\n")
    }

    @Test func `a child that code waits for is killed at the timeout, and one of an earlier call is not`() throws {
        // After the child is killed the interpreter has this time to return from the call.
        let agent = try agent(interruptDelay: 3_000)
        let earlier = try agent.run("import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid)", .python)
        let pid = try #require(Int32(earlier.text.trimmingCharacters(in: .newlines)))
        // The agent tells the two children apart by their start, which proc(5) has in hundredths of a second.
        let tick = Self.clockTick
        #expect(eventually { Self.clockTick > tick + 1 })
        let code = """
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            subprocess.call(['sh', '-c', 'echo waiting; exec sleep 600'])
            print('over')
            """
        let stream = try agent.start(code, .python)
        #expect(try agent.next(stream: stream).payload.dropFirst() == Array("waiting\n".utf8)[...])
        try agent.send(Frame(.cancel, stream: stream, payload: [CancelReason.timeout.rawValue]))
        let report = try #require(try agent.finish(stream).report)
        #expect(report.outcome == .timedOut)
        #expect(report.flags == [])
        #expect(kill(pid, 0) == 0)
    }

    @Test func `a second call of the language is refused while one runs, and bash runs beside it`() throws {
        let agent = try agent()
        let gate = try agent.makeGate("gate")
        let stream = try agent.start("os.write(1, b'running'); open('gate').readline(); print('first')", .python)
        #expect(try agent.next(stream: stream).payload.dropFirst() == Array("running".utf8)[...])
        #expect(try agent.run("1", .python).refusal?.code == .busy)
        #expect(try agent.run("echo beside").text == "beside\n")
        gate.open()
        #expect(try agent.finish(stream).text == "first\n")
    }

    @Test func `an interpreter that never starts does not keep the guest from being warm`() throws {
        let agent = try AgentHarness(python: ["/usr/bin/python3", "-c", "import sys; sys.exit(1)"])
        #expect(try agent.next(stream: 0).type == .warm)
        _ = try agent.prepare()
        #expect(try agent.run("echo on").text == "on\n")
    }

    @Test func `a rehearsal leaves no output and no identity behind, and is answered`() throws {
        let agent = try AgentHarness(python: ["/usr/bin/python3", "-c", Self.program])
        #expect(try agent.next(stream: 0).type == .warm)
        try agent.send(Frame(.rehearse, payload: AgentHarness.identity(entropy: 9).payload))
        #expect(try agent.next(stream: 0).type == .warm)
        _ = try agent.prepare()
        let output = try agent.run("print(seed[:2], prepared)", .python)
        #expect(output.text == "07 2\n")
        #expect(output.report?.flags == [])
    }
}
