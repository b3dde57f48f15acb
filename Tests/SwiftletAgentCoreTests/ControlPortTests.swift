// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Glibc
import SwiftletAgentCore
import Testing

/// `ControlPort`, `HostStream`, `OutputPump` and `ResultQueue` over a socket pair, in this process.
@Suite(.timeLimit(.minutes(5))) struct ControlPortTests {
    /// A port, and the host's end of it.
    private final class Line {
        let loop: EventLoop
        let port: ControlPort
        let host: Int32
        var frames: [Frame] = []
        var breaches: [ProtocolError] = []
        private var decoder = FrameDecoder()
        private let guest: Int32

        init() throws {
            var ends: [Int32] = [-1, -1]
            try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
            for end in ends { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
            (guest, host) = (ends[0], ends[1])
            loop = try EventLoop()
            port = ControlPort(descriptor: guest, loop: loop)
            port.onFrame = { [unowned self] in frames.append($0) }
            port.onBreach = { [unowned self] in breaches.append($0) }
            port.start()
        }

        deinit {
            close(guest)
            close(host)
        }

        func turn(_ times: Int = 5) {
            for _ in 0..<times { loop.turn(waitingAtMost: 10) }
        }

        func write(_ bytes: [UInt8]) { #expect(Glibc.write(host, bytes, bytes.count) == bytes.count) }

        /// What the host finds in its socket now.
        func received() throws -> [Frame] {
            var bytes = [UInt8](repeating: 0, count: 1 << 20)
            while case let count = read(host, &bytes, bytes.count), count > 0 { decoder.append(bytes[..<count]) }
            var found: [Frame] = []
            while let frame = try decoder.next() { found.append(frame) }
            return found
        }
    }

    private func output(_ frames: [Frame], _ channel: Channel) -> [UInt8] {
        frames.filter { $0.type == .data && $0.payload.first == channel.rawValue }.flatMap { $0.payload.dropFirst() }
    }

    @Test func `frames arrive whole and in order, however the stream was cut`() throws {
        let line = try Line()
        let sent = [Frame(.ping, payload: [1, 2, 3, 4, 5, 6, 7, 8]), Frame(.cancel, stream: 9, payload: [1])]
        for byte in sent.flatMap({ $0.encoded() }) {
            line.write([byte])
            line.turn(1)
        }
        #expect(line.frames == sent)
        #expect(line.breaches.isEmpty)
    }

    @Test(arguments: [
        ([255, 255, 255, 255, 0, 0, 0, 0, 4, 0, 0, 0] as [UInt8], ProtocolError.payloadTooLong(4_294_967_295)),
        ([0, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0], .unknownFrameType(99)),
        ([0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0], .reservedBytesNotZero),
    ])
    func `bytes that are no frame are a breach, and nothing is received after it`(bytes: [UInt8], error: ProtocolError)
        throws
    {
        let line = try Line()
        line.write(bytes + Frame(.ping).encoded())
        line.turn()
        line.write(Frame(.ping).encoded())
        line.turn()
        #expect(line.breaches == [error])
        #expect(line.frames.isEmpty)
    }

    @Test func `a host that does not read makes the port crowded, and room is reported when it reads again`() throws {
        let line = try Line()
        var rooms = 0
        line.port.onRoom = { rooms += 1 }
        let piece = Frame(.data, stream: 1, payload: [1] + [UInt8](repeating: 7, count: 60_000))
        var sent = 0
        while !line.port.isCrowded, sent < 100 {
            line.port.send(piece)
            sent += 1
        }
        #expect(line.port.isCrowded)
        #expect(rooms == 0)
        var frames: [Frame] = []
        for _ in 0..<200 where frames.count < sent {
            frames += try line.received()
            line.turn(1)
        }
        #expect(frames == Array(repeating: piece, count: sent))
        #expect(rooms == 1)
        #expect(!line.port.isCrowded)
    }

    @Test func `what a pump kept between two calls comes first, and what it could not keep is counted`() throws {
        let line = try Line()
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        let pump = OutputPump(descriptor: ends[0], channel: .stdout, loop: line.loop)
        defer { pump.close() }
        pump.startBuffering()
        for _ in 0..<3 {
            #expect(write(ends[1], [UInt8](repeating: 65, count: 30_000), 30_000) == 30_000)
            line.turn(2)
        }
        let stream = HostStream(number: 4, port: line.port)
        #expect(pump.send(to: stream) == UInt64(90_000 - OutputPump.bufferLimit))
        #expect(write(ends[1], "new", 3) == 3)
        close(ends[1])
        line.turn()
        let bytes = output(try line.received(), .stdout)
        #expect(bytes == [UInt8](repeating: 65, count: OutputPump.bufferLimit) + Array("new".utf8))
    }

    @Test func `a drain ends with what was in the pipe, and does not wait for a writer that goes on`() throws {
        let line = try Line()
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { close(ends[1]) }
        let pump = OutputPump(descriptor: ends[0], channel: .stderr, loop: line.loop)
        defer { pump.close() }
        let stream = HostStream(number: 4, port: line.port)
        #expect(write(ends[1], "last", 4) == 4)
        _ = pump.send(to: stream)
        var isDrained = false
        pump.drain { isDrained = true }
        #expect(isDrained)
        #expect(output(try line.received(), .stderr) == Array("last".utf8))
    }

    @Test func `a drain waits for credit`() throws {
        let line = try Line()
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { close(ends[1]) }
        let pump = OutputPump(descriptor: ends[0], channel: .stdout, loop: line.loop)
        defer { pump.close() }
        let stream = HostStream(number: 4, port: line.port)
        stream.pumps = [pump]
        _ = stream.take(upTo: ProtocolLimits.initialCredit)
        _ = pump.send(to: stream)
        #expect(write(ends[1], "last", 4) == 4)
        var isDrained = false
        pump.drain { isDrained = true }
        line.turn()
        #expect(!isDrained)
        stream.grant(3)
        #expect(!isDrained)
        stream.grant(1)
        #expect(isDrained)
        #expect(output(try line.received(), .stdout) == Array("last".utf8))
    }

    @Test func `a result beyond the credit waits, in order, and its end is reported once`() throws {
        let line = try Line()
        let stream = HostStream(number: 4, port: line.port)
        var emptied = 0
        let queue = ResultQueue(stream: stream) { emptied += 1 }
        stream.results = queue
        _ = stream.take(upTo: ProtocolLimits.initialCredit - 6)
        queue.add(Array("{}".utf8))
        stream.flush()
        #expect(queue.isEmpty)
        queue.add(Array("[12345]".utf8))
        var isDrained = false
        queue.drain { isDrained = true }
        #expect(!queue.isEmpty && !isDrained && emptied == 0)
        stream.grant(10)
        #expect(!queue.isEmpty && !isDrained)
        stream.grant(1)
        #expect(queue.isEmpty && isDrained && emptied == 1)
        let bytes = output(try line.received(), .results)
        #expect(bytes == [2, 0, 0, 0] + Array("{}".utf8) + [7, 0, 0, 0] + Array("[12345]".utf8))
    }
}
