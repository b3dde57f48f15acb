// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import Glibc
import NIOCore
import NIOPosix
import SwiftletTestSupport
import Testing

/// The host's end of the control port against a hostile or honest peer, over a real socket pair.
@Suite struct AgentConnectionTests {
    /// A guest agent played by the test: blocking reads and writes on the other end.
    private struct Peer: ~Copyable {
        let descriptor: Int32

        deinit { close(descriptor) }

        func send(_ frames: Frame...) {
            send(bytes: frames.flatMap { $0.encoded() })
        }

        func send(bytes: [UInt8]) {
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
                guard count > 0 else { return }
                rest = rest.dropFirst(count)
            }
        }

        /// The next frame; blocks, so that a missing one shows as a hanging test.
        func next() throws -> Frame {
            try Self.next(descriptor)
        }

        /// The next frame, for a test whose own tasks need the threads that ``next()`` would block.
        func nextFrame() async throws -> Frame {
            let descriptor = descriptor
            return try await NIOThreadPool.singleton.runIfActive { try Self.next(descriptor) }
        }

        private static func next(_ descriptor: Int32) throws -> Frame {
            var decoder = FrameDecoder()
            var byte: UInt8 = 0
            while true {
                if let frame = try decoder.next() { return frame }
                try #require(read(descriptor, &byte, 1) == 1)
                decoder.append([byte])
            }
        }
    }

    private static let identity = Prepare(
        generation: [UInt8](repeating: 7, count: Prepare.generationSize),
        wallClock: 1,
        entropy: [UInt8](repeating: 9, count: 32),
        machineID: String(repeating: "0", count: 32),
        hostName: "vm-test",
        environment: []
    )

    /// A connection whose guest has confirmed that it is its own.
    private func withConnection(
        tick: TimeAmount = .seconds(60),
        _ body: (AgentConnection, borrowing Peer) async throws -> Void
    ) async throws {
        try await withUnpreparedConnection(tick: tick) { connection, peer in
            let prepared = connection.prepare(Self.identity)
            let asked = try peer.next()
            #expect(asked.type == .prepare)
            peer.send(
                Frame(.prepared, payload: Prepared(generation: Self.identity.generation, confirmed: .all).payload)
            )
            _ = try await prepared.get()
            try await body(connection, peer)
        }
    }

    private func withUnpreparedConnection(
        tick: TimeAmount = .seconds(60),
        _ body: (AgentConnection, borrowing Peer) async throws -> Void
    ) async throws {
        var ends: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        let connection = try await AgentConnection.open(
            socket: ends[0],
            on: MultiThreadedEventLoopGroup.singleton,
            tick: tick
        )
        let peer = Peer(descriptor: ends[1])
        try await body(connection, peer)
        connection.fail(TestIsOver())
    }

    /// Starts a program, and returns when its `execute` and `end` frames have arrived: the connection knows the stream by then,
    /// so that frames which the peer sends for it are never those of an unknown stream.
    private func started(
        _ connection: AgentConnection,
        _ peer: borrowing Peer,
        stream: UInt32 = 1
    ) throws -> any GuestExecution {
        let run = connection.execute(.bash, source: [], timeout: .seconds(5))
        let execute = try peer.next()
        #expect(execute.type == .execute && execute.stream == stream)
        let end = try peer.next()
        #expect(end.type == .end)
        return run
    }

    private func report(_ outcome: ExitReport.Outcome = .exited, code: Int32 = 0) -> [UInt8] {
        ExitReport(outcome: outcome, code: code, wallTime: 1, cpuTime: 1).payload
    }

    @Test func codeMayFollowTheIdentityAtOnce() async throws {
        try await withUnpreparedConnection { connection, peer in
            let prepared = connection.prepare(Self.identity)
            let run = connection.execute(.bash, source: [], timeout: .seconds(5))
            // A guest answers what it was asked.
            for type in [FrameType.prepare, .execute, .end] {
                let asked = try peer.next()
                #expect(asked.type == type)
            }
            peer.send(
                Frame(.prepared, payload: Prepared(generation: Self.identity.generation, confirmed: .all).payload),
                Frame(.exit, stream: 1, payload: report(code: 4))
            )
            for try await event in run.events {
                if case .exited(let report) = event { #expect(report.code == 4) }
            }
            #expect(try await prepared.get().confirmed == .all)
        }
    }

    @Test(arguments: [
        Frame(
            .prepared,
            payload: Prepared(generation: identity.generation, confirmed: [.randomness, .wallClock]).payload
        ),
        Frame(.prepared, payload: Prepared(generation: identity.generation, confirmed: []).payload),
        Frame(.prepared, payload: Prepared(generation: [UInt8](repeating: 8, count: 16), confirmed: .all).payload),
        Frame(.data, stream: 1, payload: [1, 65]),
        Frame(.exit, stream: 1, payload: ExitReport(outcome: .exited, code: 0, wallTime: 0, cpuTime: 0).payload),
    ])
    func aGuestThatIsNotItsOwnIsNeverUsed(answer: Frame) async throws {
        try await withUnpreparedConnection { connection, peer in
            let prepared = connection.prepare(Self.identity)
            let run = connection.execute(.bash, source: [], timeout: .seconds(5))
            let asked = try peer.next()
            #expect(asked.type == .prepare)
            peer.send(answer)
            await #expect(throws: AgentError.self) {
                for try await _ in run.events {}
            }
            await #expect(throws: (any Error).self) { try await prepared.get() }
        }
    }

    @Test func anExecutionsOutputAndExitArriveInOrder() async throws {
        try await withConnection { connection, peer in
            let run = connection.execute(.bash, source: Array("echo hi".utf8), timeout: .seconds(5))
            let frame1 = try peer.next()
            #expect(frame1.type == .execute)
            let frame2 = try peer.next()
            #expect(frame2.payload == [0] + Array("echo hi".utf8))
            let frame3 = try peer.next()
            #expect(frame3.type == .end)
            peer.send(
                Frame(.data, stream: 1, payload: [1] + Array("hi".utf8)),
                Frame(.data, stream: 1, payload: [2] + Array("oops".utf8)),
                Frame(.exit, stream: 1, payload: report(code: 3))
            )
            var seen: [String] = []
            for try await event in run.events {
                switch event {
                case .output(let channel, let bytes):
                    seen.append("\(channel):\(String(decoding: bytes, as: UTF8.self))")
                case .exited(let report): seen.append("exit \(report.code)")
                case .refused, .deadline: Issue.record("Unexpected \(event)")
                }
            }
            #expect(seen == ["stdout:hi", "stderr:oops", "exit 3"])
        }
    }

    @Test func aLongSourceWaitsForCredit() async throws {
        try await withConnection { connection, peer in
            let source = [UInt8](repeating: 65, count: ProtocolLimits.initialCredit + 1_000)
            _ = connection.execute(.python, source: source, timeout: .seconds(5))
            let frame4 = try peer.next()
            #expect(frame4.type == .execute)
            var received = 0
            while received < ProtocolLimits.initialCredit { received += try peer.next().payload.count - 1 }
            #expect(received == ProtocolLimits.initialCredit)
            var writer = WireWriter()
            writer.write(UInt32(100_000))
            peer.send(Frame(.credit, stream: 1, payload: writer.bytes))
            let frame5 = try peer.next()
            #expect(frame5.payload.count == 1_001)
            let frame6 = try peer.next()
            #expect(frame6.type == .end)
        }
    }

    @Test func creditIsGivenBackAsOutputIsUsed() async throws {
        try await withConnection { connection, peer in
            let run = connection.execute(.bash, source: [], timeout: .seconds(5))
            let frame7 = try peer.next()
            #expect(frame7.type == .execute)
            let frame8 = try peer.next()
            #expect(frame8.type == .end)
            peer.send(Frame(.data, stream: 1, payload: [1] + [UInt8](repeating: 0, count: 60_000)))
            peer.send(Frame(.data, stream: 1, payload: [1] + [UInt8](repeating: 0, count: 60_000)))
            var events = run.events.makeAsyncIterator()
            _ = try await events.next()
            run.consumed(60_000)
            _ = try await events.next()
            run.consumed(60_000)
            let credit = try peer.next()
            #expect(credit.type == .credit)
            #expect(credit.payload == [0xc0, 0xd4, 0x01, 0x00])
        }
    }

    @Test(arguments: [
        Frame(.data, stream: 9, payload: [1, 65]),
        Frame(.exit, stream: 9, payload: ExitReport(outcome: .exited, code: 0, wallTime: 0, cpuTime: 0).payload),
        Frame(.data, stream: 1, payload: [0, 65]),
        Frame(.data, stream: 1, payload: []),
        Frame(.data, stream: 1, payload: [1]),
        Frame(
            .exit,
            stream: 1,
            payload: ExitReport(outcome: .exited, code: 0, wallTime: 0, cpuTime: 0, droppedStdout: .max).payload
        ),
        Frame(.exit, stream: 1, payload: ExitReport(outcome: .exited, code: 256, wallTime: 0, cpuTime: 0).payload),
        Frame(.exit, stream: 1, payload: ExitReport(outcome: .signaled, code: 0, wallTime: 0, cpuTime: 0).payload),
        Frame(.exit, stream: 1, payload: [1]),
        Frame(.prepared, stream: 0, payload: [0, 0, 0, 0, 0, 0, 0, 0]),
        Frame(.hello, stream: 0, payload: Hello(version: 99, kernelRelease: "6.1", memory: 1).payload),
        Frame(.execute, stream: 1, payload: []),
    ])
    func aBreachOfTheProtocolEndsTheConnection(frame: Frame) async throws {
        try await withConnection { connection, peer in
            let run = try started(connection, peer)
            peer.send(frame)
            await #expect(throws: AgentError.self) {
                for try await _ in run.events {}
            }
            await #expect(throws: AgentError.self) { try await connection.ping(within: .seconds(5)) }
        }
    }

    @Test func moreOutputThanCreditEndsTheConnection() async throws {
        try await withConnection { connection, peer in
            let run = try started(connection, peer)
            for _ in 0..<5 {
                peer.send(Frame(.data, stream: 1, payload: [1] + [UInt8](repeating: 0, count: 65_000)))
            }
            await #expect(throws: AgentError.self) {
                for try await _ in run.events {}
            }
        }
    }

    @Test func outputInBytesIsJoined() async throws {
        try await withConnection { connection, peer in
            let run = try started(connection, peer)
            var bytes: [UInt8] = []
            for value in 0..<50_000 {
                let channel: AgentProtocol.Channel = value % 2 == 0 ? .stdout : .stderr
                let payload = [channel.rawValue, UInt8(truncatingIfNeeded: value / 2)]
                Frame(.data, stream: 1, payload: payload).encode(into: &bytes)
            }
            peer.send(bytes: bytes)
            peer.send(Frame(.exit, stream: 1, payload: report()))
            var events = 0
            var output: [AgentProtocol.Channel: [UInt8]] = [:]
            // Nobody reports what was used up: the guest's output may pile up in bytes and not in events.
            for try await event in run.events {
                events += 1
                if case .output(let channel, let bytes) = event { output[channel, default: []] += bytes }
            }
            #expect(events < 150)
            let expected = (0..<25_000).map { UInt8(truncatingIfNeeded: $0) }
            #expect(output == [.stdout: expected, .stderr: expected])
        }
    }

    @Test func outputBeforeABreachIsNotLost() async throws {
        try await withConnection { connection, peer in
            let run = try started(connection, peer)
            peer.send(Frame(.data, stream: 1, payload: [1, 65]), Frame(.execute, stream: 1))
            var output: [UInt8] = []
            await #expect(throws: AgentError.self) {
                for try await event in run.events {
                    if case .output(_, let bytes) = event { output += bytes }
                }
            }
            #expect(output == [65])
        }
    }

    @Test func aRequestThatFitsNoFrameIsRefused() async throws {
        try await withUnpreparedConnection { connection, _ in
            var request = Self.identity
            request.environment = (0..<10_000).map { .init(name: "\($0)", value: "") }
            await #expect(throws: AgentError.self) { try await connection.prepare(request).get() }
        }
    }

    @Test func workOnATreeLastsWhileTheAgentAnswers() async throws {
        try await withConnection(tick: .milliseconds(400)) { connection, peer in
            let file = connection.open(try FileRequest(.remove, path: [47, 97], flags: .recursive))
            let request = try peer.next()
            #expect(request.type == .file)
            // Beyond the ticks that are silence.
            for _ in 0..<3 {
                let ping = try peer.next()
                #expect(ping.type == .ping)
                peer.send(Frame(.pong, payload: ping.payload))
            }
            peer.send(Frame(.done, stream: 1, payload: FileDone().payload))
            var isDone = false
            for try await event in file.events {
                if case .done(let done) = event { isDone = done.failure == nil }
            }
            #expect(isDone)
        }
    }

    @Test func aCancelledReaderCancelsTheOperationInTheGuest() async throws {
        try await withConnection { connection, peer in
            let file = connection.open(try FileRequest(.read, path: [47, 97]))
            let request = try peer.next()
            #expect(request.type == .file)
            let reader = Task {
                var count = 0
                for try await _ in file.events { count += 1 }
                return (count, Task.isCancelled)
            }
            peer.send(Frame(.opened, stream: 1, payload: FileStatus(kind: .regular, mode: 0o644, size: 1).payload))
            reader.cancel()
            // Sent although the operation is still referred to.
            let cancel = try await peer.nextFrame()
            #expect(cancel.type == .cancel && cancel.stream == 1)
            let (count, isCancelled) = try await reader.value
            #expect(count <= 1 && isCancelled)
            // The agent's last word on the stream is no breach of the protocol, and the connection goes on.
            peer.send(Frame(.done, stream: 1, payload: FileDone(failure: .cancelled).payload))
            _ = try started(connection, peer, stream: 2)
            withExtendedLifetime(file) {}
        }
    }

    @Test func aCancelledWriterCancelsTheOperationInTheGuest() async throws {
        try await withConnection { connection, peer in
            let file = connection.open(try FileRequest(.write, path: [47, 97]))
            let request = try peer.next()
            #expect(request.type == .file)
            let writer = Task {
                try await file.write(ByteBuffer(repeating: 1, count: ProtocolLimits.initialCredit + 1))
            }
            // The last byte has no credit.
            var received = 0
            while received < ProtocolLimits.initialCredit {
                let frame = try await peer.nextFrame()
                try #require(frame.type == .data)
                received += frame.payload.count - 1
            }
            writer.cancel()
            let cancel = try await peer.nextFrame()
            #expect(cancel.type == .cancel && cancel.stream == 1)
            await #expect(throws: CancellationError.self) { try await writer.value }
            peer.send(Frame(.done, stream: 1, payload: FileDone(failure: .cancelled).payload))
            _ = try started(connection, peer, stream: 2)
            withExtendedLifetime(file) {}
        }
    }

    @Test func anAgentThatIsDeadIsGivenUp() async throws {
        try await withConnection(tick: .milliseconds(20)) { connection, _ in
            let file = connection.open(try FileRequest(.remove, path: [47, 97], flags: .recursive))
            let silence = try #require(
                await #expect(throws: AgentFile.Silence.self) {
                    for try await _ in file.events {}
                }
            )
            #expect(!silence.agentAnswers)
        }
    }

    @Test func randomBytesNeverCrashTheHost() async throws {
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<200 {
            try await withConnection { connection, peer in
                let run = try started(connection, peer)
                let count = Int.random(in: 12...400, using: &generator)
                var bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
                // Likely frames go deeper than noise.
                if Bool.random(using: &generator) {
                    bytes.replaceSubrange(
                        0..<12,
                        with: [UInt8(count - 12 > 255 ? 255 : count - 12), 0, 0, 0, 1, 0, 0, 0]
                    )
                    bytes.insert(contentsOf: [UInt8.random(in: 0...18, using: &generator), 0, 0, 0], at: 8)
                }
                peer.send(bytes: bytes)
                connection.cancel(stream: 1, reason: .cancelled)
                connection.fail(TestIsOver())
                do {
                    for try await _ in run.events {}
                } catch {
                    #expect(error is TestIsOver || error is AgentError)
                }
            }
        }
    }

    @Test func aPingWithoutAnAnswerFails() async throws {
        try await withConnection { connection, peer in
            await #expect(throws: (any Error).self) { try await connection.ping(within: .milliseconds(20)) }
            let asked = try peer.next()
            #expect(asked.type == .ping)
        }
    }
}

/// Ends the connection of a test.
private struct TestIsOver: Error {}
