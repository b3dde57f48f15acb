// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgent
import Glibc

/// Moves a program's output from its pipe to where it belongs at the moment.
///
/// The pipe's other end may be held by a background child for as long as that lives, so a pump outlives the execution that it was
/// made for: nobody who writes is ever blocked for good, or killed by SIGPIPE.
final class OutputPump {
    private enum Target {
        /// Up to a limit in memory, for the next call.
        case kept
        /// To the host, as far as credit reaches.
        case stream(HostStream)
        case discarded
    }

    /// Bytes kept between two calls.
    private static let keepLimit = 64 * 1024
    private static let chunk = 32 * 1024

    private let descriptor: Int32
    private let channel: Channel
    private let loop: EventLoop
    private var target = Target.discarded
    private var kept: [UInt8] = []
    private var dropped: UInt64 = 0
    private var isWatching = false
    private var isClosed = false
    /// While an execution ends: bytes of its output that are still in the pipe, and whom to tell when they are gone.
    private var draining: (left: Int, done: () -> Void)?

    init(descriptor: Int32, channel: Channel, loop: EventLoop) {
        self.descriptor = descriptor
        self.channel = channel
        self.loop = loop
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    /// Output is kept from now on.
    func keep() {
        target = .kept
        update()
    }

    /// Output goes to a stream from now on, beginning with what was kept. Returns how many bytes could not be kept.
    func send(to stream: HostStream) -> UInt64 {
        target = .stream(stream)
        defer { dropped = 0 }
        update()
        return dropped
    }

    /// Nobody wants the output; it is read all the same, until every writer is gone. Returns how many bytes were lost by it.
    @discardableResult
    func discard() -> UInt64 {
        defer { dropped = 0 }
        let lost = dropped + UInt64(kept.count)
        target = .discarded
        kept = []
        update()
        return lost
    }

    /// Calls back when all that is in the pipe now was sent. What comes later is not waited for: a child may write for ever.
    func drain(_ done: @escaping () -> Void) {
        draining = (isClosed ? 0 : Int(agent_pending_bytes(descriptor)), done)
        pump()
    }

    /// Credit came, or room in the port's queue.
    func resume() {
        update()
    }

    /// Closes the pipe, whoever may write to it.
    func close() {
        guard !isClosed else { return }
        isClosed = true
        if isWatching { loop.unwatch(descriptor) }
        isWatching = false
        Glibc.close(descriptor)
    }

    private var canRead: Bool {
        switch target {
        case .kept, .discarded: true
        case .stream(let stream): stream.canSend
        }
    }

    private func update() {
        if !kept.isEmpty || draining != nil {
            pump()
            return
        }
        watch(canRead)
    }

    private func watch(_ wanted: Bool) {
        guard !isClosed, wanted != isWatching else { return }
        isWatching = wanted
        if wanted {
            loop.watch(descriptor, for: EventLoop.readable) { [self] _ in pump() }
        } else {
            loop.unwatch(descriptor)
        }
    }

    private func pump() {
        sendKept()
        if !isClosed, canRead, kept.isEmpty || !isStreaming { readOnce() }
        while draining != nil, !isClosed, canRead, kept.isEmpty, (draining?.left ?? 0) > 0 {
            readOnce()
        }
        if let draining, kept.isEmpty, draining.left <= 0 || isClosed {
            self.draining = nil
            draining.done()
        }
        watch(canRead)
    }

    private var isStreaming: Bool {
        if case .stream = target { true } else { false }
    }

    private func sendKept() {
        guard case .stream(let stream) = target else { return }
        while case let count = stream.take(upTo: min(kept.count, OutputPump.chunk)), count > 0 {
            // Taken out first: sending may make room, which calls back to here.
            let piece = Array(kept.prefix(count))
            kept.removeFirst(count)
            piece.withUnsafeBytes { stream.send($0, channel: channel) }
        }
    }

    private func readOnce() {
        var wanted = OutputPump.chunk
        if let draining { wanted = min(wanted, draining.left) }
        if case .stream(let stream) = target { wanted = min(wanted, stream.available) }
        guard wanted > 0 else { return }
        withUnsafeTemporaryAllocation(byteCount: wanted, alignment: 1) { buffer in
            let count = read(descriptor, buffer.baseAddress, wanted)
            if count < 0, errno == EAGAIN || errno == EINTR {
                // The kernel counted what another reader of the pipe has taken since.
                draining?.left = 0
                return
            }
            guard count > 0 else {
                close()
                return
            }
            draining?.left -= count
            deliver(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }

    private func deliver(_ bytes: UnsafeRawBufferPointer) {
        switch target {
        case .stream(let stream):
            _ = stream.take(upTo: bytes.count)
            stream.send(bytes, channel: channel)
        case .kept:
            let room = OutputPump.keepLimit - kept.count
            kept.append(contentsOf: bytes.prefix(room))
            dropped += UInt64(max(0, bytes.count - room))
        case .discarded:
            break
        }
    }
}

/// An execution's stream to the host, with its credit.
final class HostStream {
    let number: UInt32
    private let port: ControlPort
    private var window = SendWindow()
    /// What must be tried again when credit comes.
    var pumps: [OutputPump] = []
    var results: ResultQueue?

    init(number: UInt32, port: ControlPort) {
        self.number = number
        self.port = port
    }

    var available: Int { window.available }
    var canSend: Bool { window.available > 0 && !port.isCrowded }

    func take(upTo count: Int) -> Int { window.take(upTo: count) }

    func send(_ bytes: UnsafeRawBufferPointer, channel: Channel) {
        port.send(output: bytes, channel: channel, stream: number)
    }

    /// As ``send(_:channel:)``, to leave with the next ``flush()``.
    func queue(_ bytes: UnsafeRawBufferPointer, channel: Channel) {
        port.queue(output: bytes, channel: channel, stream: number)
    }

    func flush() {
        port.flush()
    }

    func grant(_ bytes: UInt32) {
        window.grant(bytes)
        resume()
    }

    /// Tries again to send what waits for credit or room.
    func resume() {
        pumps.forEach { $0.resume() }
        results?.resume()
    }

    func send(_ type: FrameType, _ payload: [UInt8]) {
        port.send(Frame(type, stream: number, payload: payload))
    }
}
