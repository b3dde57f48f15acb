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
        var continuation: Continuation
        /// What the agent may send: nothing before it was asked for a range.
        var receive = ReceiveWindow()
        var send = SendWindow()
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

    /// Ticks of silence after which an operation is given up.
    private static let silenceLimit = 2

    private var streams: [UInt32: Stream] = [:]

    package init() {}

    package var isEmpty: Bool { streams.isEmpty }

    package func contains(_ number: UInt32) -> Bool { streams[number] != nil }

    // MARK: Requests of the host

    package mutating func open(_ number: UInt32, request: FileRequest, continuation: Continuation) -> [Frame] {
        let isReading = request.operation == .list || request.operation == .pack
        streams[number] = Stream(operation: request.operation, continuation: continuation, isReading: isReading)
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
        stream.continuation.finish()
        return [Frame(.cancel, stream: number, payload: [CancelReason.cancelled.rawValue])]
    }

    package mutating func consumed(_ number: UInt32, bytes: Int) -> [Frame] {
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

    /// Gives up what waits for a silent agent. To be called at even intervals.
    package mutating func tick() -> [Frame] {
        var frames: [Frame] = []
        for (number, stream) in streams where !stream.isCancelled {
            let isOwed =
                !stream.isOpened || stream.unsent != nil || stream.isEnded
                || (stream.isReading && stream.receive.isOpen)
            streams[number]?.silentTicks = isOwed ? stream.silentTicks + 1 : 0
            guard isOwed, stream.silentTicks + 1 >= Self.silenceLimit else { continue }
            stream.continuation.finish(throwing: AgentFile.Silence())
            frames += cancel(number)
        }
        return frames
    }

    /// Ends everything.
    package mutating func fail(_ error: any Error) {
        for stream in streams.values {
            stream.writer?.fail(error)
            stream.continuation.finish(throwing: error)
        }
        streams = [:]
    }

    // MARK: Frames of the agent

    package mutating func receive(_ frame: Frame) throws(ProtocolError) -> [Frame] {
        let number = frame.stream
        guard var stream = streams[number] else { throw .unexpectedFrame(frame.type, stream: number) }
        stream.silentTicks = 0
        switch frame.type {
        case .opened:
            guard !stream.isOpened, [.read, .write, .pack, .unpack].contains(stream.operation) else {
                throw .unexpectedFrame(.opened, stream: number)
            }
            stream.isOpened = true
            stream.continuation.yield(.opened(try FileStatus(payload: frame.payload)))
        case .data:
            try receive(content: frame, on: &stream)
        case .credit:
            var reader = WireReader(frame.payload)
            stream.send.grant(try reader.read())
            try reader.finish()
            streams[number] = stream
            return sendable(number)
        case .done:
            let done = try FileDone(payload: frame.payload)
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

    private func receive(content frame: Frame, on stream: inout Stream) throws(ProtocolError) {
        // An empty one would cost the guest no credit, and the host an event.
        guard stream.isReading, frame.payload.count > 1,
            frame.payload.first == AgentProtocol.Channel.content.rawValue
        else { throw .unexpectedFrame(.data, stream: frame.stream) }
        let count = frame.payload.count - 1
        try stream.receive.receive(count, stream: frame.stream)
        guard UInt64(count) <= stream.wanted else { throw .creditExceeded(stream: frame.stream) }
        stream.wanted -= stream.wanted == .max ? 0 : UInt64(count)
        guard !stream.isCancelled else { return }
        if stream.operation == .list {
            stream.continuation.yield(.entries(try FileEntry.all(in: Array(frame.payload.dropFirst())), bytes: count))
        } else {
            stream.continuation.yield(.content(frame.payload.dropFirst()))
        }
    }
}
