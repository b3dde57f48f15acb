// SPDX-License-Identifier: Apache-2.0

import AgentClient
import NIOCore

/// Reads a socket or pipe to its end and keeps the last bytes: a guest's console, QEMU's complaints.
final class TailCapture: Sendable {
    private let channel: any Channel
    private let handler: NIOLoopBound<TailHandler>

    private init(channel: any Channel, handler: NIOLoopBound<TailHandler>) {
        self.channel = channel
        self.handler = handler
    }

    /// Takes over a connected socket and closes it in the end.
    static func open(
        socket: Int32,
        limit: Int,
        onLine: (@Sendable (String) -> Void)? = nil,
        on group: any EventLoopGroup
    ) async throws -> TailCapture {
        let socket = try await ConnectedSocket.open(socket, on: group) { _ in
            TailHandler(limit: limit, onLine: onLine)
        }
        return TailCapture(channel: socket.channel, handler: socket.handler)
    }

    /// What was kept so far, as text; bytes that are none are replaced.
    func text() async throws -> String {
        let handler = handler
        return try await channel.eventLoop.submit { String(decoding: handler.value.tail, as: UTF8.self) }.get()
    }

    /// Waits until the writer has closed its end.
    func waitForEnd() async throws {
        try await channel.closeFuture.get()
    }

    /// Waits until the writer has closed its end, but not longer than this; then nothing more is read.
    func waitForEnd(atMost limit: TimeAmount) async throws {
        let channel = channel
        let timer = channel.eventLoop.scheduleTask(in: limit) { channel.close(promise: nil) }
        try await channel.closeFuture.get()
        timer.cancel()
    }
}

private final class TailHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let limit: Int
    private let onLine: (@Sendable (String) -> Void)?
    private var bytes: [UInt8] = []
    private var line: [UInt8] = []

    init(limit: Int, onLine: (@Sendable (String) -> Void)?) {
        self.limit = limit
        self.onLine = onLine
    }

    var tail: ArraySlice<UInt8> { bytes.suffix(limit) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let arrived = unwrapInboundIn(data).readableBytesView
        bytes.append(contentsOf: arrived)
        if let onLine { report(arrived, to: onLine) }
        // Trimmed now and then, so that a flood costs little more than its copy.
        if bytes.count > 4 * limit { bytes.removeFirst(bytes.count - limit) }
    }

    private func report(_ arrived: ByteBufferView, to onLine: (String) -> Void) {
        for byte in arrived {
            if byte == UInt8(ascii: "\n") {
                onLine(String(decoding: line, as: UTF8.self))
                line = []
            } else if line.count < limit {
                line.append(byte)
            }
        }
    }
}
