// SPDX-License-Identifier: Apache-2.0

import AgentClient
import Foundation
import NIOCore

/// QEMU's control socket.
///
/// Format: QEMU Machine Protocol, one JSON object a line; see "QEMU Machine Protocol Specification" in QEMU's documentation. QEMU
/// greets, takes commands after `qmp_capabilities`, and sends events at any time.
final class QMPConnection: Sendable {
    private let channel: any Channel
    private let handler: NIOLoopBound<QMPHandler>

    private init(channel: any Channel, handler: NIOLoopBound<QMPHandler>) {
        self.channel = channel
        self.handler = handler
    }

    /// Takes over a connected socket and negotiates; commands wait until QEMU is ready.
    static func open(socket: Int32, on group: any EventLoopGroup) async throws -> QMPConnection {
        let socket = try await ConnectedSocket.open(
            socket,
            on: group,
            decoder: { ByteToMessageHandler(LineDecoder(limit: 1 << 20)) },
            handler: { QMPHandler(eventLoop: $0) }
        )
        return QMPConnection(channel: socket.channel, handler: socket.handler)
    }

    /// Runs a command and waits for its answer.
    ///
    /// - Throws: `QMPError` with QEMU's words, or when the connection ends.
    func execute(_ command: String, arguments: String = "{}") async throws {
        let handler = handler
        try await channel.eventLoop.flatSubmit { handler.value.execute(command, arguments: arguments) }.get()
    }

    /// Runs a command without waiting for its answer; a failure shows as what it was for failing.
    func send(_ command: String, arguments: String = "{}") {
        let handler = handler
        channel.eventLoop.execute { _ = handler.value.execute(command, arguments: arguments) }
    }

    /// Starts a migration, in or out, and waits for its end.
    ///
    /// - Parameters:
    ///   - command: `migrate` or `migrate-incoming`.
    ///   - uri: where to or from.
    func migrate(_ command: String, uri: String) async throws {
        let handler = handler
        // Device state only: the memory is in a file that both sides map. The end is told by an event.
        let capabilities = ["x-ignore-shared", "events"]
            .map { "{\"capability\":\"\($0)\",\"state\":true}" }.joined(separator: ",")
        try await channel.eventLoop.flatSubmit {
            let end = handler.value.migrationEnd()
            _ = handler.value.execute("migrate-set-capabilities", arguments: "{\"capabilities\":[\(capabilities)]}")
            handler.value.execute(command, arguments: "{\"uri\":\"\(uri)\"}").cascadeFailure(to: end)
            return end.futureResult
        }.get()
    }

    /// The reason in QEMU's `SHUTDOWN` event (`guest-reset`, `guest-panic`, ...), once the connection has ended.
    func shutdownReason() async -> String? {
        let handler = handler
        let closed = channel.closeFuture
        return try? await closed.map { handler.value.shutdownReason }.get()
    }

    func close() {
        channel.close(promise: nil)
    }
}

/// What QEMU said of a command.
struct QMPError: Error, CustomStringConvertible {
    static let gone = QMPError(description: "QEMU is gone")

    let description: String
}

private final class QMPHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private struct Message: Decodable {
        struct Failure: Decodable {
            let desc: String
        }
        struct EventData: Decodable {
            let reason: String?
            let status: String?
        }
        struct Empty: Decodable {}

        let id: Int?
        let error: Failure?
        let event: String?
        let data: EventData?
        let QMP: Empty?
    }

    private(set) var shutdownReason: String?
    private let eventLoop: any EventLoop
    private var context: ChannelHandlerContext?
    private var pending: [Int: EventLoopPromise<Void>] = [:]
    private var waiting: [String] = []
    private var migration: EventLoopPromise<Void>?
    private var ready = false
    private var closed = false
    private var lastID = 0

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    func execute(_ command: String, arguments: String) -> EventLoopFuture<Void> {
        guard !closed else { return eventLoop.makeFailedFuture(QMPError.gone) }
        lastID += 1
        let promise = eventLoop.makePromise(of: Void.self)
        pending[lastID] = promise
        let line = "{\"execute\":\"\(command)\",\"arguments\":\(arguments),\"id\":\(lastID)}\n"
        if ready { send(line) } else { waiting.append(line) }
        return promise.futureResult
    }

    /// The end of the migration that is about to be started.
    func migrationEnd() -> EventLoopPromise<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        if closed { promise.fail(QMPError.gone) }
        migration = promise
        return promise
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let line = unwrapInboundIn(data)
        guard let message = try? JSONDecoder().decode(Message.self, from: Data(line.readableBytesView)) else {
            // QEMU itself is not to be trusted once a guest has broken out into it.
            context.close(promise: nil)
            return
        }
        if message.QMP != nil, !ready {
            ready = true
            send("{\"execute\":\"qmp_capabilities\"}\n")
            waiting.forEach(send)
            waiting = []
        } else if message.event == "SHUTDOWN" {
            shutdownReason = message.data?.reason
        } else if message.event == "MIGRATION" {
            switch message.data?.status {
            case "completed": migration?.succeed()
            case "failed": migration?.fail(QMPError(description: "The migration failed"))
            default: break
            }
        } else if let id = message.id, let promise = pending.removeValue(forKey: id) {
            if let error = message.error {
                promise.fail(QMPError(description: error.desc))
            } else {
                promise.succeed()
            }
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        closed = true
        for promise in pending.values { promise.fail(QMPError.gone) }
        pending = [:]
        migration?.fail(QMPError.gone)
        context.fireChannelInactive()
    }

    private func send(_ line: String) {
        guard let context else { return }
        context.writeAndFlush(wrapOutboundOut(context.channel.allocator.buffer(string: line)), promise: nil)
    }
}

/// Cuts at line feeds; a line over the limit ends the connection.
private struct LineDecoder: ByteToMessageDecoder {
    typealias InboundOut = ByteBuffer

    let limit: Int

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        guard let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) else {
            guard buffer.readableBytes <= limit else { throw QMPError(description: "A line of QEMU's is too long") }
            return .needMoreData
        }
        let length = end - buffer.readerIndex
        if let line = buffer.readSlice(length: length) {
            buffer.moveReaderIndex(forwardBy: 1)
            if length > 1 { context.fireChannelRead(wrapInboundOut(line)) }
        }
        return .continue
    }
}
