// SPDX-License-Identifier: Apache-2.0

package import AgentProtocol
import CAgent
import Glibc

/// Reads a program's output from its pipe and passes it to the current target.
///
/// A background child may hold the pipe's other end for as long as it lives, so a pump outlives the execution that it was made
/// for: a child that writes is never blocked for good, nor killed by SIGPIPE.
package final class OutputPump {
    private enum Target {
        /// Up to a limit in memory, for the next call.
        case buffered
        /// To the host, within the stream's credit.
        case stream(HostStream)
        case discarded
    }

    /// The most bytes that are kept between two calls.
    package static let bufferLimit = 64 * 1024
    private static let chunk = 32 * 1024

    private let descriptor: Int32
    private let channel: Channel
    private let loop: EventLoop
    private var target = Target.discarded
    private var buffered: [UInt8] = []
    private var dropped: UInt64 = 0
    private var isWatching = false
    private var isClosed = false
    /// While an execution ends: bytes of its output that are still in the pipe, and what to call when they are sent.
    private var draining: (remaining: Int, done: () -> Void)?

    package init(descriptor: Int32, channel: Channel, loop: EventLoop) {
        self.descriptor = descriptor
        self.channel = channel
        self.loop = loop
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    /// Keeps output from now on, for the next stream.
    package func startBuffering() {
        target = .buffered
        update()
    }

    /// Sends output to a stream from now on, beginning with the kept bytes. Returns how many bytes could not be kept.
    package func send(to stream: HostStream) -> UInt64 {
        target = .stream(stream)
        defer { dropped = 0 }
        update()
        return dropped
    }

    /// Reads and drops output until every writer is gone. Returns how many bytes of the time before are lost.
    @discardableResult
    package func discard() -> UInt64 {
        defer { dropped = 0 }
        let lost = dropped + UInt64(buffered.count)
        target = .discarded
        buffered = []
        update()
        return lost
    }

    /// Calls back when all bytes that are in the pipe now were sent. Later ones are not waited for: a child may write for ever.
    package func drain(_ done: @escaping () -> Void) {
        draining = (isClosed ? 0 : Int(agent_pending_bytes(descriptor)), done)
        pump()
    }

    /// Must be called when credit came, or room in the port's queue.
    package func resume() {
        update()
    }

    /// Closes the pipe, even if a program still writes to it.
    package func close() {
        guard !isClosed else { return }
        isClosed = true
        if isWatching { loop.unwatch(descriptor) }
        isWatching = false
        Glibc.close(descriptor)
    }

    private var canRead: Bool {
        switch target {
        case .buffered, .discarded: true
        case .stream(let stream): stream.canSend
        }
    }

    private func update() {
        if !buffered.isEmpty || draining != nil {
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
        sendBuffered()
        if !isClosed, canRead, buffered.isEmpty || !isStreaming { readOnce() }
        while draining != nil, !isClosed, canRead, buffered.isEmpty, (draining?.remaining ?? 0) > 0 {
            readOnce()
        }
        if let draining, buffered.isEmpty, draining.remaining <= 0 || isClosed {
            self.draining = nil
            draining.done()
        }
        watch(canRead)
    }

    private var isStreaming: Bool {
        if case .stream = target { true } else { false }
    }

    private func sendBuffered() {
        guard case .stream(let stream) = target else { return }
        while case let count = stream.take(upTo: min(buffered.count, OutputPump.chunk)), count > 0 {
            // Taken out first: sending may make room, which calls back to here.
            let piece = Array(buffered.prefix(count))
            buffered.removeFirst(count)
            piece.withUnsafeBytes { stream.send($0, channel: channel) }
        }
    }

    private func readOnce() {
        var wanted = OutputPump.chunk
        if let draining { wanted = min(wanted, draining.remaining) }
        if case .stream(let stream) = target { wanted = min(wanted, stream.available) }
        guard wanted > 0 else { return }
        withUnsafeTemporaryAllocation(byteCount: wanted, alignment: 1) { buffer in
            let count = read(descriptor, buffer.baseAddress, wanted)
            if count < 0, errno == EAGAIN || errno == EINTR {
                // The kernel counted what another reader of the pipe has taken since.
                draining?.remaining = 0
                return
            }
            guard count > 0 else {
                close()
                return
            }
            draining?.remaining -= count
            deliver(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }

    private func deliver(_ bytes: UnsafeRawBufferPointer) {
        switch target {
        case .stream(let stream):
            _ = stream.take(upTo: bytes.count)
            stream.send(bytes, channel: channel)
        case .buffered:
            let room = OutputPump.bufferLimit - buffered.count
            buffered.append(contentsOf: bytes.prefix(room))
            dropped += UInt64(max(0, bytes.count - room))
        case .discarded:
            break
        }
    }
}

/// An execution's stream to the host, with its credit.
package final class HostStream {
    package let number: UInt32
    private let port: ControlPort
    private var window = SendWindow()
    /// The sources of output that ``resume()`` lets go on.
    package var pumps: [OutputPump] = []
    package var results: ResultQueue?

    package init(number: UInt32, port: ControlPort) {
        self.number = number
        self.port = port
    }

    var available: Int { window.available }
    var canSend: Bool { window.available > 0 && !port.isCrowded }

    package func take(upTo count: Int) -> Int { window.take(upTo: count) }

    func send(_ bytes: UnsafeRawBufferPointer, channel: Channel) {
        port.send(output: bytes, channel: channel, stream: number)
    }

    /// As ``send(_:channel:)``, to leave with the next ``flush()``.
    func queue(_ bytes: UnsafeRawBufferPointer, channel: Channel) {
        port.queue(output: bytes, channel: channel, stream: number)
    }

    package func flush() {
        port.flush()
    }

    package func grant(_ bytes: UInt32) {
        window.grant(bytes)
        resume()
    }

    /// Sends what waits for credit or room.
    package func resume() {
        pumps.forEach { $0.resume() }
        results?.resume()
    }

    func send(_ type: FrameType, _ payload: [UInt8]) {
        port.send(Frame(type, stream: number, payload: payload))
    }
}
