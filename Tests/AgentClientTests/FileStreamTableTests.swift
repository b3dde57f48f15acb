// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import NIOCore
import NIOPosix
import SwiftletTestSupport
import Testing

/// The host's side of operations on files, without a socket: frames in, frames out.
@Suite struct FileStreamTableTests {
    private typealias Events = AsyncThrowingStream<AgentFile.Event, any Error>

    private static let status = FileStatus(kind: .regular, mode: 0o644, size: 10)

    private func content(_ count: Int, stream: UInt32 = 1) -> Frame {
        Frame(.data, stream: stream, payload: [Channel.content.rawValue] + [UInt8](repeating: 1, count: count))
    }

    private typealias Channel = AgentProtocol.Channel

    /// A table with stream 1 open for an operation.
    private func table(
        _ operation: FileRequest.Operation,
        flags: FileRequest.Flags = []
    ) throws -> (FileStreamTable, Events) {
        var table = FileStreamTable()
        let (events, continuation) = Events.makeStream()
        let request = try FileRequest(operation, path: [47], flags: flags)
        let frames = table.open(1, request: request, continuation: continuation)
        #expect(frames.map(\.type) == [.file])
        return (table, events)
    }

    @Test func aFileIsReadWithinItsRange() async throws {
        var (table, events) = try table(.read)
        #expect(try table.receive(Frame(.opened, stream: 1, payload: Self.status.payload)).isEmpty)
        #expect(table.select(1, range: FileRange(offset: 0, length: 10)).map(\.type) == [.range])
        #expect(table.select(1, range: FileRange(offset: 0, length: 10)).isEmpty)
        _ = try table.receive(content(10))
        _ = try table.receive(Frame(.done, stream: 1, payload: FileDone(count: 10).payload))
        #expect(!table.contains(1))
        var kinds: [String] = []
        for try await event in events {
            switch event {
            case .opened: kinds.append("opened")
            case .content(let bytes): kinds.append("content \(bytes.count)")
            case .entries: kinds.append("entries")
            case .done(let done): kinds.append("done \(done.count)")
            }
        }
        #expect(kinds == ["opened", "content 10", "done 10"])
    }

    @Test func contentThatWasNotAskedForIsABreach() throws {
        let (unopened, _) = try table(.read)
        var early = unopened
        #expect(throws: ProtocolError.self) { try early.receive(content(1)) }
        var (table, _) = try table(.read)
        _ = try table.receive(Frame(.opened, stream: 1, payload: Self.status.payload))
        #expect(throws: ProtocolError.self) { try table.receive(content(1)) }
        _ = table.select(1, range: FileRange(offset: 0, length: 10))
        #expect(throws: ProtocolError.self) { try table.receive(content(11)) }
        var (writing, _) = try self.table(.write)
        #expect(throws: ProtocolError.self) { try writing.receive(content(1)) }
        var (listing, _) = try self.table(.list)
        #expect(throws: ProtocolError.self) { try listing.receive(content(5)) }
        #expect(throws: ProtocolError.self) {
            try listing.receive(Frame(.opened, stream: 1, payload: Self.status.payload))
        }
    }

    @Test func moreThanItsCreditIsABreach() throws {
        var (table, _) = try table(.pack)
        _ = try table.receive(Frame(.opened, stream: 1, payload: Self.status.payload))
        for _ in 0..<4 { _ = try table.receive(content(65_000)) }
        #expect(throws: ProtocolError.creditExceeded(stream: 1)) { try table.receive(content(65_000)) }
    }

    @Test(arguments: [
        Frame(.opened, stream: 2, payload: status.payload), Frame(.opened, stream: 1, payload: [1]),
        Frame(.done, stream: 1, payload: []), Frame(.exit, stream: 1), Frame(.data, stream: 1, payload: []),
        Frame(.data, stream: 1, payload: [3]), Frame(.data, stream: 1, payload: [1, 65]), Frame(.credit, stream: 1),
        Frame(.file, stream: 1), Frame(.range, stream: 1),
    ])
    func whatIsNoAnswerIsABreach(frame: Frame) throws {
        var (table, _) = try table(.pack)
        #expect(throws: ProtocolError.self) { try table.receive(frame) }
    }

    @Test func aWriterWaitsForCredit() async throws {
        var (table, _) = try table(.write)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: Void.self)
        let bytes = ByteBuffer(repeating: 1, count: ProtocolLimits.initialCredit + 100)
        let frames = table.write(1, bytes, promise: promise)
        #expect(frames.reduce(0) { $0 + $1.payload.count - 1 } == ProtocolLimits.initialCredit)
        var writer = WireWriter()
        writer.write(UInt32(100))
        let rest = try table.receive(Frame(.credit, stream: 1, payload: writer.bytes))
        #expect(rest.map(\.payload.count) == [101])
        try await promise.futureResult.get()
        #expect(table.finish(1).map(\.type) == [.end])
        #expect(table.finish(1).isEmpty)
    }

    @Test func aWriterHearsOfTheEnd() async throws {
        var (table, _) = try table(.write)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promises = (0..<3).map { _ in loop.makePromise(of: Void.self) }
        _ = table.write(1, ByteBuffer(repeating: 1, count: ProtocolLimits.initialCredit + 1), promise: promises[0])
        // One writer at a time.
        _ = table.write(1, ByteBuffer(), promise: promises[1])
        _ = try table.receive(Frame(.done, stream: 1, payload: FileDone(failure: .noSpace).payload))
        _ = table.write(1, ByteBuffer(), promise: promises[2])
        for promise in promises {
            await #expect(throws: AgentFile.Over.self) { try await promise.futureResult.get() }
        }
    }

    @Test func whatIsCancelledMayStillTalkUntilItIsDone() throws {
        var (table, _) = try table(.pack)
        _ = try table.receive(Frame(.opened, stream: 1, payload: Self.status.payload))
        #expect(table.cancel(1).map(\.type) == [.cancel])
        #expect(table.cancel(1).isEmpty)
        _ = try table.receive(content(100))
        _ = try table.receive(Frame(.done, stream: 1, payload: FileDone(failure: .cancelled).payload))
        #expect(table.isEmpty)
    }

    /// Lets intervals pass; whether each asked for a sign of life.
    private func asked(_ table: inout FileStreamTable, ticks: Int) -> [Bool] {
        (0..<ticks).map { _ in
            let tick = table.tick()
            #expect(tick.frames.isEmpty)
            return tick.mustAsk
        }
    }

    @Test func aSilentAgentIsAskedAndThenGivenUp() async throws {
        var (table, events) = try table(.read)
        #expect(table.giveUpSilent().isEmpty)
        #expect(asked(&table, ticks: 3) == [false, true, true])
        #expect(table.giveUpSilent().map(\.type) == [.cancel])
        #expect(table.giveUpSilent().isEmpty)
        let silence = try #require(
            await #expect(throws: AgentFile.Silence.self) {
                for try await _ in events {}
            }
        )
        #expect(!silence.agentAnswers)
        // Who waits for the host owes nothing.
        var (writing, _) = try self.table(.write)
        _ = try writing.receive(Frame(.opened, stream: 1, payload: Self.status.payload))
        #expect(asked(&writing, ticks: 20) == Array(repeating: false, count: 20))
    }

    @Test(arguments: [FileRequest.Operation.pack, .unpack, .remove])
    func workOnATreeMayLastAsLongAsTheAgentAnswers(operation: FileRequest.Operation) throws {
        var (table, _) = try table(operation, flags: .recursive)
        #expect(asked(&table, ticks: 100).last == true)
        _ = try table.receive(Frame(.done, stream: 1, payload: FileDone().payload))
        #expect(table.isEmpty)
    }

    @Test func oneFileIsGivenUpInTheEnd() async throws {
        var (table, events) = try table(.status)
        #expect(asked(&table, ticks: 9).last == true)
        #expect(table.tick().frames.map(\.type) == [.cancel])
        let silence = try #require(
            await #expect(throws: AgentFile.Silence.self) {
                for try await _ in events {}
            }
        )
        #expect(silence.agentAnswers)
    }

    @Test func contentInBytesIsJoined() async throws {
        var (table, events) = try table(.pack)
        _ = try table.receive(Frame(.opened, stream: 1, payload: Self.status.payload))
        for value in 0..<200_000 {
            let payload = [Channel.content.rawValue, UInt8(truncatingIfNeeded: value)]
            _ = try table.receive(Frame(.data, stream: 1, payload: payload))
            // As if each came by itself, and nobody read.
            table.deliver()
        }
        _ = try table.receive(Frame(.done, stream: 1, payload: FileDone().payload))
        var pieces: [[UInt8]] = []
        for try await event in events {
            if case .content(let bytes) = event { pieces.append(Array(bytes)) }
        }
        #expect(pieces.count < 100)
        #expect(pieces.flatMap(\.self) == (0..<200_000).map { UInt8(truncatingIfNeeded: $0) })
    }

    @Test func aReaderThatKeepsUpGetsEachPieceAtOnce() async throws {
        var (table, events) = try table(.pack)
        _ = try table.receive(Frame(.opened, stream: 1, payload: Self.status.payload))
        var reader = events.makeAsyncIterator()
        _ = try await reader.next()
        for _ in 0..<1_000 {
            _ = try table.receive(content(7))
            table.deliver()
            guard case .content(let bytes) = try await reader.next() else { throw ProtocolError.truncatedMessage }
            #expect(bytes.count == 7)
            _ = table.consumed(1, bytes: 7)
        }
    }

    @Test func aReaderThatFallsBehindGetsTheRestWhenItReads() async throws {
        var (table, events) = try table(.pack)
        _ = try table.receive(Frame(.opened, stream: 1, payload: Self.status.payload))
        for _ in 0..<1_000 {
            _ = try table.receive(content(1))
            table.deliver()
        }
        var reader = events.makeAsyncIterator()
        _ = try await reader.next()
        var count = 0
        while count < 1_000 {
            guard case .content(let bytes) = try await reader.next() else { throw ProtocolError.truncatedMessage }
            count += bytes.count
            _ = table.consumed(1, bytes: bytes.count)
        }
    }

    @Test func randomFramesNeverCrashTheHost() throws {
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<3_000 {
            let operation = FileRequest.Operation.allCases.randomElement(using: &generator) ?? .read
            var (table, _) = try table(operation)
            for _ in 0..<5 {
                let type = FrameType.allCases.randomElement(using: &generator) ?? .done
                let seeds = [Self.status.payload, FileDone(count: 3).payload, [3, 65], [0, 0, 1, 0]]
                var payload = seeds.randomElement(using: &generator) ?? []
                if Bool.random(using: &generator) {
                    payload[Int.random(in: 0..<payload.count, using: &generator)] = .random(
                        in: 0...255,
                        using: &generator
                    )
                }
                guard (try? table.receive(Frame(type, stream: 1, payload: payload))) != nil else { break }
                _ = table.select(1, range: FileRange(offset: 0, length: 5))
            }
        }
    }
}
