// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import NIOCore

/// Speaks the agent's protocol on one event loop: frames in, events out to the stream that they belong to.
///
/// Trusts nothing that arrives: the first breach of the protocol ends the connection.
final class AgentHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private struct Stream {
        var continuation: AsyncThrowingStream<AgentExecution.Event, any Error>.Continuation
        var receive = ReceiveWindow()
        var send = SendWindow()
        var output = PieceQueue()
        /// Source text that waits for credit.
        var unsent: ArraySlice<UInt8>
        var deadline: Scheduled<Void>?
    }

    let hello: EventLoopPromise<Hello>
    let warm: EventLoopPromise<Void>
    private var violation: (@Sendable (ProtocolError) -> Void)?
    private var breach: ProtocolError?

    private let eventLoop: any EventLoop
    /// How often operations on files are looked after.
    private let tick: TimeAmount
    private var context: ChannelHandlerContext?
    private var decoder = FrameDecoder()
    private var streams: [UInt32: Stream] = [:]
    /// Streams whose output came with what is being read.
    private var touched: [UInt32] = []
    private var files = FileStreamTable()
    private var ticker: RepeatedTask?
    private var preparing: (request: Prepare, promise: EventLoopPromise<Prepared>)?
    /// The guest has confirmed what must be its own.
    private var isPrepared = false
    private var rehearsal: EventLoopPromise<Void>?
    private var pings: [UInt64: EventLoopPromise<Void>] = [:]
    private var lastPing: UInt64 = 0
    private var failure: (any Error)?
    private var greeted = false

    init(eventLoop: any EventLoop, tick: TimeAmount) {
        self.eventLoop = eventLoop
        self.tick = tick
        hello = eventLoop.makePromise()
        warm = eventLoop.makePromise()
    }

    // MARK: Requests of the host

    func prepare(_ message: Prepare) -> EventLoopFuture<Prepared> {
        if let failure { return eventLoop.makeFailedFuture(failure) }
        let payload = message.payload
        guard payload.count <= ProtocolLimits.maximumPayload else {
            return eventLoop.makeFailedFuture(AgentError.environmentTooLarge)
        }
        let promise = eventLoop.makePromise(of: Prepared.self)
        preparing = (message, promise)
        send([Frame(.prepare, payload: payload)])
        return promise.futureResult
    }

    func rehearse(_ message: Prepare) -> EventLoopFuture<Void> {
        if let failure { return eventLoop.makeFailedFuture(failure) }
        let promise = eventLoop.makePromise(of: Void.self)
        rehearsal = promise
        send([Frame(.rehearse, payload: message.payload)])
        return promise.futureResult
    }

    func ping(within limit: TimeAmount) -> EventLoopFuture<Void> {
        if let failure { return eventLoop.makeFailedFuture(failure) }
        lastPing += 1
        let number = lastPing
        let promise = eventLoop.makePromise(of: Void.self)
        pings[number] = promise
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let timer = eventLoop.scheduleTask(in: limit) {
            bound.value.pings.removeValue(forKey: number)?.fail(ChannelError.connectTimeout(limit))
        }
        promise.futureResult.whenComplete { _ in timer.cancel() }
        var writer = WireWriter()
        writer.write(number)
        send([Frame(.ping, payload: writer.bytes)])
        return promise.futureResult
    }

    func open(
        stream: UInt32,
        request: ExecuteRequest,
        source: [UInt8],
        continuation: AsyncThrowingStream<AgentExecution.Event, any Error>.Continuation
    ) {
        if let failure {
            continuation.finish(throwing: failure)
            return
        }
        streams[stream] = Stream(continuation: continuation, unsent: source[...])
        var frames = [Frame(.execute, stream: stream, payload: request.payload)]
        frames += sourceFrames(stream: stream)
        send(frames)
    }

    /// Opens a stream for an operation on a file.
    func open(stream: UInt32, request: FileRequest, continuation: FileStreamTable.Continuation) {
        if let failure {
            continuation.finish(throwing: failure)
            return
        }
        withFiles { $0.open(stream, request: request, continuation: continuation) }
        guard ticker == nil else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        ticker = eventLoop.scheduleRepeatedTask(initialDelay: tick, delay: tick) { task in
            bound.value.lookAfterFiles(task)
        }
    }

    /// Looks after operations on files, while there are any.
    private func lookAfterFiles(_ task: RepeatedTask) {
        let result = files.tick()
        send(result.frames)
        if result.mustAsk {
            // Work on a large tree says nothing for minutes, and yet the agent lives.
            let bound = NIOLoopBound(self, eventLoop: eventLoop)
            ping(within: .nanoseconds(tick.nanoseconds / 2)).whenFailure { _ in
                bound.value.withFiles { $0.giveUpSilent() }
            }
        }
        guard files.isEmpty else { return }
        task.cancel()
        ticker = nil
    }

    /// Changes the files' streams and sends what follows from it.
    func withFiles(_ body: (inout FileStreamTable) -> [Frame]) {
        send(body(&files))
    }

    func cancel(stream: UInt32, reason: CancelReason) {
        guard streams[stream] != nil else { return }
        send([Frame(.cancel, stream: stream, payload: [reason.rawValue])])
    }

    func consumed(stream: UInt32, bytes: Int) {
        streams[stream]?.output.consume(bytes)
        deliver(stream)
        guard let credit = streams[stream]?.receive.consume(bytes) else { return }
        var writer = WireWriter()
        writer.write(credit)
        send([Frame(.credit, stream: stream, payload: writer.bytes)])
    }

    func setDeadline(stream: UInt32, delay: TimeAmount) {
        guard streams[stream] != nil else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        streams[stream]?.deadline?.cancel()
        streams[stream]?.deadline = eventLoop.scheduleTask(in: delay) {
            _ = bound.value.streams[stream]?.continuation.yield(.deadline)
        }
    }

    /// Calls back at the first breach, also one that was before.
    func onViolation(_ callback: @escaping @Sendable (ProtocolError) -> Void) {
        violation = callback
        if let breach { callback(breach) }
    }

    /// Ends everything that waits.
    func fail(_ error: any Error) {
        guard failure == nil else { return }
        failure = error
        hello.fail(error)
        warm.fail(error)
        rehearsal?.fail(error)
        rehearsal = nil
        preparing?.promise.fail(error)
        preparing = nil
        for promise in pings.values { promise.fail(error) }
        pings = [:]
        for stream in streams.values {
            stream.deadline?.cancel()
            var output = stream.output
            for piece in output.all() { stream.continuation.yield(.output(piece.channel, piece.bytes)) }
            stream.continuation.finish(throwing: error)
        }
        streams = [:]
        files.fail(error)
        ticker?.cancel()
        ticker = nil
    }

    private func sourceFrames(stream: UInt32) -> [Frame] {
        guard var state = streams[stream] else { return [] }
        let piece = state.unsent.prefix(state.send.take(upTo: state.unsent.count))
        state.unsent = state.unsent.dropFirst(piece.count)
        streams[stream] = state
        var frames = Frame.data(piece, channel: .source, stream: stream)
        if state.unsent.isEmpty {
            frames.append(Frame(.end, stream: stream, payload: [AgentProtocol.Channel.source.rawValue]))
        }
        return frames
    }

    private func send(_ frames: [Frame]) {
        guard let context, !frames.isEmpty else { return }
        var bytes: [UInt8] = []
        for frame in frames { frame.encode(into: &bytes) }
        context.writeAndFlush(wrapOutboundOut(context.channel.allocator.buffer(bytes: bytes)), promise: nil)
    }

    // MARK: Frames of the agent

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard failure == nil else { return }
        decoder.append(unwrapInboundIn(data).readableBytesView)
        do throws(ProtocolError) {
            while let frame = try decoder.next() {
                try receive(frame)
            }
            deliver()
        } catch {
            fail(AgentError.protocolViolation(error))
            breach = error
            violation?(error)
        }
    }

    private func receive(_ frame: Frame) throws(ProtocolError) {
        switch frame.type {
        case .hello where !greeted && frame.stream == 0:
            let message = try Hello(payload: frame.payload)
            guard message.version == ProtocolLimits.version else {
                throw .invalidValue(field: "version", value: UInt64(message.version))
            }
            greeted = true
            hello.succeed(message)
        case .warm where frame.stream == 0:
            if let rehearsal {
                self.rehearsal = nil
                rehearsal.succeed()
            } else {
                warm.succeed()
            }
        case .prepared where frame.stream == 0:
            guard let (request, promise) = preparing else { throw .unexpectedFrame(frame.type, stream: frame.stream) }
            preparing = nil
            let answer = try Prepared(payload: frame.payload)
            guard answer.generation == request.generation, answer.confirmed == .all else {
                let missing = Prepared.Confirmation.all.subtracting(answer.confirmed)
                promise.fail(AgentError.notPrepared("\(missing)"))
                throw .notPrepared(missing: missing)
            }
            isPrepared = true
            promise.succeed(answer)
        case .pong where frame.stream == 0:
            var reader = WireReader(frame.payload)
            let number = try reader.read(UInt64.self)
            try reader.finish()
            // An answer that came after its time limit finds nobody.
            pings.removeValue(forKey: number)?.succeed()
        default:
            try receive(frame, on: frame.stream)
        }
    }

    private func receive(_ frame: Frame, on number: UInt32) throws(ProtocolError) {
        if isPrepared, files.contains(number) { return send(try files.receive(frame)) }
        // Nothing may run in a guest that is not its own yet.
        guard isPrepared || frame.type == .credit, streams[number] != nil else {
            throw .unexpectedFrame(frame.type, stream: number)
        }
        switch frame.type {
        case .data:
            // An empty one would cost the guest no credit.
            guard frame.payload.count > 1, let code = frame.payload.first,
                let channel = AgentProtocol.Channel(rawValue: code),
                channel == .stdout || channel == .stderr || channel == .results
            else { throw .invalidValue(field: "channel", value: UInt64(frame.payload.first ?? 0)) }
            // In place: a copy of the stream would make one of all that waits.
            try streams[number]?.receive.receive(frame.payload.count - 1, stream: number)
            streams[number]?.output.append(frame.payload.dropFirst(), channel: channel)
            if touched.last != number { touched.append(number) }
        case .credit:
            var reader = WireReader(frame.payload)
            streams[number]?.send.grant(try reader.read())
            try reader.finish()
            if streams[number]?.unsent.isEmpty == false { send(sourceFrames(stream: number)) }
        case .exit:
            finish(number, with: .exited(try ExitReport(payload: frame.payload)))
        case .refuse:
            finish(number, with: .refused(try ExecutionRefusal(payload: frame.payload)))
        case .end:
            break
        case .hello, .prepare, .prepared, .ping, .pong, .execute, .cancel, .warm, .rehearse, .file, .opened, .range,
            .done:
            throw .unexpectedFrame(frame.type, stream: number)
        }
    }

    /// Gives what came to those who read it.
    private func deliver() {
        for number in touched { deliver(number) }
        touched.removeAll(keepingCapacity: true)
        files.deliver()
    }

    private func deliver(_ number: UInt32) {
        guard let pieces = streams[number]?.output.next() else { return }
        for piece in pieces { streams[number]?.continuation.yield(.output(piece.channel, piece.bytes)) }
    }

    private func finish(_ number: UInt32, with event: AgentExecution.Event) {
        guard var stream = streams.removeValue(forKey: number) else { return }
        for piece in stream.output.all() { stream.continuation.yield(.output(piece.channel, piece.bytes)) }
        stream.deadline?.cancel()
        stream.continuation.yield(event)
        stream.continuation.finish()
    }
}
