// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgent
import Glibc

/// The virtio port to the host: frames in, frames out, never blocking.
final class ControlPort {
    /// Program output waits in its pipes while more than this is queued.
    private static let crowded = 256 * 1024

    private let descriptor: Int32
    private let loop: EventLoop
    private var decoder = FrameDecoder()
    private var queue: [UInt8] = []
    private var sent = 0
    private var isWatchingForRoom = false
    private var input = [UInt8](repeating: 0, count: 64 * 1024)

    /// Called with each frame of the host.
    var onFrame: (Frame) -> Void = { _ in }
    /// Called when the queue has become short enough for program output.
    var onRoom: () -> Void = {}

    init(descriptor: Int32, loop: EventLoop) {
        self.descriptor = descriptor
        self.loop = loop
    }

    var isCrowded: Bool { queue.count - sent > ControlPort.crowded }

    func start() {
        loop.watch(descriptor, for: EventLoop.readable) { [unowned self] events in
            if events & EventLoop.writable != 0 { flush() }
            if events & EventLoop.readable != 0 { receive() }
        }
        flush()
    }

    func send(_ frame: Frame) {
        frame.encode(into: &queue)
        flush()
    }

    /// Sends program output without building a frame first.
    func send(output bytes: UnsafeRawBufferPointer, channel: Channel, stream: UInt32) {
        queue(output: bytes, channel: channel, stream: stream)
        flush()
    }

    /// Program output that leaves with whatever is sent next, or with ``flush()``.
    func queue(output bytes: UnsafeRawBufferPointer, channel: Channel, stream: UInt32) {
        let length = UInt32(bytes.count + 1)
        withUnsafeBytes(of: length.littleEndian) { queue.append(contentsOf: $0) }
        withUnsafeBytes(of: stream.littleEndian) { queue.append(contentsOf: $0) }
        queue.append(contentsOf: [FrameType.data.rawValue, 0, 0, 0, channel.rawValue])
        queue.append(contentsOf: bytes)
    }

    /// Sends as much of what is queued as the port takes.
    func flush() {
        let wasCrowded = isCrowded
        while sent < queue.count {
            let count = queue.withUnsafeBytes {
                write(descriptor, $0.baseAddress?.advanced(by: sent), $0.count - sent)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            sent += count
        }
        if sent == queue.count {
            queue.removeAll(keepingCapacity: true)
            sent = 0
        } else if sent > 1 << 20 {
            queue.removeFirst(sent)
            sent = 0
        }
        let mustWatch = !queue.isEmpty
        if mustWatch != isWatchingForRoom {
            isWatchingForRoom = mustWatch
            loop.change(descriptor, to: EventLoop.readable | (mustWatch ? EventLoop.writable : 0))
        }
        if wasCrowded, !isCrowded { onRoom() }
    }

    private func receive() {
        let count = read(descriptor, &input, input.count)
        guard count != 0 else { return pause() }
        guard count > 0 else { return }
        decoder.append(input[..<count])
        do throws(ProtocolError) {
            while let frame = try decoder.next() { onFrame(frame) }
        } catch {
            die("The host broke the protocol: \(error)")
        }
    }

    /// Nobody is at the other end: asks again later, as the port would report it without end.
    private func pause() {
        loop.unwatch(descriptor)
        isWatchingForRoom = false
        loop.schedule(milliseconds: 100) { [unowned self] in start() }
    }
}
