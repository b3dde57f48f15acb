// SPDX-License-Identifier: Apache-2.0

package import AgentProtocol
package import NIOCore

/// The streams of a connection that are operations on files: requests of the host and frames of the agent in, frames to send out.
///
/// Trusts nothing that arrives: what does not fit the operation is a breach.
package struct FileStreamTable {
    package typealias Continuation = AsyncThrowingStream<AgentFile.Event, any Error>.Continuation

    private struct Stream {
        let operation: FileRequest.Operation
        /// A program works on a whole tree, for as long as that takes.
        let isTree: Bool
        var continuation: Continuation
        /// What the agent may send: nothing before it was asked for a range.
        var receive = ReceiveWindow()
        var send = SendWindow()
        var content = PieceQueue()
        var isOpened = false
        /// Content may come.
        var isReading: Bool
        /// Bytes of content that are still wanted.
        var wanted: UInt64 = .max
        var unsent: ByteBuffer?
        var writer: EventLoopPromise<Void>?
        var isEnded = false
        /// Nobody listens any more; the agent has not said `done` yet.
        var isCancelled = false
        /// The agent has said nothing for so many ticks, although it should.
        var silentTicks = 0
    }

    /// What follows from an interval that has passed.
    package struct Tick {
        package var frames: [Frame] = []
        /// Something is owed for so long that the agent is to be asked whether it lives.
        package var mustAsk = false
    }

    /// Ticks of silence after which the agent is asked whether it lives.
    private static let silenceLimit = 2
    /// Ticks of silence after which one file is given up although the agent lives.
    private static let patience = 10

    private var streams: [UInt32: Stream] = [:]
    /// Streams whose content came and was not delivered yet.
    private var touched: [UInt32] = []

    package init() {}

    package var isEmpty: Bool { streams.isEmpty }

    package func contains(_ number: UInt32) -> Bool { streams[number] != nil }

    // MARK: Requests of the host

    package mutating func open(_ number: UInt32, request: FileRequest, continuation: Continuation) -> [Frame] {
        let isReading = request.operation == .list || request.operation == .pack
        let isTree =
            [.pack, .unpack].contains(request.operation)
            || (request.operation == .remove && request.flags.contains(.recursive))
        streams[number] = Stream(
            operation: request.operation,
            isTree: isTree,
            continuation: continuation,
            isReading: isReading
        )
        return [Frame(.file, stream: number, payload: request.payload)]
    }

    package mutating func select(_ number: UInt32, range: FileRange) -> [Frame] {
        guard let stream = streams[number], stream.isOpened, !stream.isReading else { return [] }
        streams[number]?.isReading = true
        streams[number]?.wanted = range.length
        return [Frame(.range, stream: number, payload: range.payload)]
    }

    /// Sends bytes as far as credit reaches. The promise is kept when all of them were sent; a promise of a stream that has ended fails.
    package mutating func write(_ number: UInt32, _ bytes: ByteBuffer, promise: EventLoopPromise<Void>) -> [Frame] {
        guard let stream = streams[number], !stream.isEnded, stream.writer == nil else {
            promise.fail(AgentFile.Over())
            return []
        }
        streams[number]?.unsent = bytes
        streams[number]?.writer = promise
        return sendable(number)
    }

    package mutating func finish(_ number: UInt32) -> [Frame] {
        guard let stream = streams[number], !stream.isEnded else { return [] }
        streams[number]?.isEnded = true
        return [Frame(.end, stream: number, payload: [AgentProtocol.Channel.content.rawValue])]
    }

    package mutating func cancel(_ number: UInt32) -> [Frame] {
        guard let stream = streams[number], !stream.isCancelled else { return [] }
        streams[number]?.isCancelled = true
        stream.writer?.fail(AgentFile.Over())
        streams[number]?.writer = nil
        streams[number]?.unsent = nil
        streams[number]?.content = PieceQueue()
        stream.continuation.finish()
        return [Frame(.cancel, stream: number, payload: [CancelReason.cancelled.rawValue])]
    }

    package mutating func consumed(_ number: UInt32, bytes: Int) -> [Frame] {
        streams[number]?.content.consume(bytes)
        deliver(number)
        guard let credit = streams[number]?.receive.consume(bytes) else { return [] }
        var writer = WireWriter()
        writer.write(credit)
        return [Frame(.credit, stream: number, payload: writer.bytes)]
    }

    private mutating func sendable(_ number: UInt32) -> [Frame] {
        guard var stream = streams[number], var unsent = stream.unsent else { return [] }
        let piece = unsent.readBytes(length: stream.send.take(upTo: unsent.readableBytes)) ?? []
        stream.unsent = unsent
        if unsent.readableBytes == 0 {
            stream.unsent = nil
            stream.writer?.succeed()
            stream.writer = nil
        }
        streams[number] = stream
        return Frame.data(piece[...], channel: .content, stream: number)
    }

    /// Counts for how long the agent owes something. To be called at even intervals.
    package mutating func tick() -> Tick {
        var result = Tick()
        for (number, stream) in streams where !stream.isCancelled {
            let isOwed =
                !stream.isOpened || stream.unsent != nil || stream.isEnded
                || (stream.isReading && stream.receive.isOpen)
            let ticks = isOwed ? stream.silentTicks + 1 : 0
            streams[number]?.silentTicks = ticks
            if ticks >= Self.patience, !stream.isTree {
                result.frames += giveUp(number, agentAnswers: true)
            } else if ticks >= Self.silenceLimit {
                result.mustAsk = true
            }
        }
        return result
    }

    /// The agent does not live: gives up all that it owes for long.
    package mutating func giveUpSilent() -> [Frame] {
        let silent = streams.filter { !$0.value.isCancelled && $0.value.silentTicks >= Self.silenceLimit }
        return silent.keys.flatMap { giveUp($0, agentAnswers: false) }
    }

    private mutating func giveUp(_ number: UInt32, agentAnswers: Bool) -> [Frame] {
        streams[number]?.continuation.finish(throwing: AgentFile.Silence(agentAnswers: agentAnswers))
        return cancel(number)
    }

    /// Ends everything.
    package mutating func fail(_ error: any Error) {
        for (number, stream) in streams {
            deliverAll(number)
            stream.writer?.fail(error)
            stream.continuation.finish(throwing: error)
        }
        streams = [:]
    }

    // MARK: Frames of the agent

    package mutating func receive(_ frame: Frame) throws(ProtocolError) -> [Frame] {
        let number = frame.stream
        guard streams[number] != nil else { throw .unexpectedFrame(frame.type, stream: number) }
        streams[number]?.silentTicks = 0
        if frame.type == .data {
            try receive(content: frame)
            return []
        }
        guard var stream = streams[number] else { return [] }
        switch frame.type {
        case .opened:
            guard !stream.isOpened, [.read, .write, .pack, .unpack].contains(stream.operation) else {
                throw .unexpectedFrame(.opened, stream: number)
            }
            stream.isOpened = true
            stream.continuation.yield(.opened(try FileStatus(payload: frame.payload)))
        case .credit:
            var reader = WireReader(frame.payload)
            stream.send.grant(try reader.read())
            try reader.finish()
            streams[number] = stream
            return sendable(number)
        case .done:
            let done = try FileDone(payload: frame.payload)
            deliverAll(number)
            streams[number] = nil
            stream.writer?.fail(AgentFile.Over())
            stream.continuation.yield(.done(done))
            stream.continuation.finish()
            return []
        default:
            throw .unexpectedFrame(frame.type, stream: number)
        }
        streams[number] = stream
        return []
    }

    /// Changes the stream in its place: a copy would make one of all that waits.
    private mutating func receive(content frame: Frame) throws(ProtocolError) {
        let number = frame.stream
        // An empty one would cost the guest no credit.
        guard streams[number]?.isReading == true, frame.payload.count > 1,
            frame.payload.first == AgentProtocol.Channel.content.rawValue
        else { throw .unexpectedFrame(.data, stream: number) }
        let count = frame.payload.count - 1
        try streams[number]?.receive.receive(count, stream: number)
        let wanted = streams[number]?.wanted ?? 0
        guard UInt64(count) <= wanted else { throw .creditExceeded(stream: number) }
        if wanted != .max { streams[number]?.wanted = wanted - UInt64(count) }
        guard streams[number]?.isCancelled == false else { return }
        if streams[number]?.operation == .list {
            let entries = try FileEntry.all(in: Array(frame.payload.dropFirst()))
            streams[number]?.continuation.yield(.entries(entries, bytes: count))
        } else {
            streams[number]?.content.append(frame.payload.dropFirst(), channel: .content)
            if touched.last != number { touched.append(number) }
        }
    }

    /// Gives the content that came to those who read it. To be called when all frames at hand were received.
    package mutating func deliver() {
        for number in touched { deliver(number) }
        touched.removeAll(keepingCapacity: true)
    }

    private mutating func deliver(_ number: UInt32) {
        guard let pieces = streams[number]?.content.next() else { return }
        for piece in pieces { streams[number]?.continuation.yield(.content(piece.bytes[...])) }
    }

    /// At the stream's end.
    private mutating func deliverAll(_ number: UInt32) {
        guard let pieces = streams[number]?.content.all() else { return }
        for piece in pieces { streams[number]?.continuation.yield(.content(piece.bytes[...])) }
    }
}
