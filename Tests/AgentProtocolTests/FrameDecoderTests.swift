// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import SwiftletTestSupport
import Testing

@Suite struct FrameDecoderTests {
    private let frames = [
        Frame(.hello, payload: [1, 2, 3]),
        Frame(.data, stream: 7, payload: [1] + Array(repeating: 9, count: 300)),
        Frame(.end, stream: .max, payload: [0]),
        Frame(.ping),
        Frame(.data, stream: 1, payload: Array(repeating: 0, count: ProtocolLimits.maximumPayload)),
    ]

    @Test(arguments: [1, 2, 3, 11, 12, 13, 64, 4_096, 100_000])
    func framesAreFoundHoweverTheBytesWereSplit(piece: Int) throws {
        let bytes = frames.flatMap { $0.encoded() }
        var decoder = FrameDecoder()
        var found: [Frame] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            decoder.append(rest.prefix(piece))
            rest = rest.dropFirst(piece)
            while let frame = try decoder.next() { found.append(frame) }
        }
        #expect(found == frames)
        #expect(decoder.pendingBytes == 0)
    }

    @Test func aPayloadOverTheLimitIsRefusedBeforeItArrives() {
        var decoder = FrameDecoder()
        decoder.append([0x01, 0x00, 0x01, 0x00, 0, 0, 0, 0, 1, 0, 0, 0])
        #expect(throws: ProtocolError.payloadTooLong(65_537)) { try decoder.next() }
    }

    @Test(arguments: [UInt8(0), 19, 255])
    func anUnknownTypeIsRefused(type: UInt8) {
        var decoder = FrameDecoder()
        decoder.append([0, 0, 0, 0, 0, 0, 0, 0, type, 0, 0, 0])
        #expect(throws: ProtocolError.unknownFrameType(type)) { try decoder.next() }
    }

    @Test(arguments: [9, 10, 11])
    func reservedBytesMustBeZero(position: Int) {
        var bytes = Frame(.ping).encoded()
        bytes[position] = 1
        var decoder = FrameDecoder()
        decoder.append(bytes)
        #expect(throws: ProtocolError.reservedBytesNotZero) { try decoder.next() }
    }

    @Test func anyBytesAreFramesOrRefused() {
        var generator = SeededGenerator(seed: 1)
        for _ in 0..<100_000 {
            var decoder = FrameDecoder()
            var bytes = (0..<Int.random(in: 0...60, using: &generator)).map { _ in
                UInt8.random(in: 0...255, using: &generator)
            }
            // Small lengths and known types get further than noise does.
            if bytes.count > 12 { bytes.replaceSubrange(1..<4, with: [0, 0, 0]) }
            if bytes.count > 12, Bool.random(using: &generator) { bytes.replaceSubrange(9..<12, with: [0, 0, 0]) }
            decoder.append(bytes)
            do {
                while let frame = try decoder.next() {
                    #expect(frame.payload.count <= ProtocolLimits.maximumPayload)
                }
            } catch {
                continue
            }
        }
    }

    @Test func dataIsCutIntoFramesThatFit() {
        let bytes = (0..<150_000).map { UInt8(truncatingIfNeeded: $0) }
        let frames = Frame.data(bytes[...], channel: .stdout, stream: 3)
        #expect(frames.allSatisfy { $0.payload.count <= ProtocolLimits.maximumPayload && $0.payload[0] == 1 })
        #expect(frames.flatMap { $0.payload.dropFirst() } == bytes)
    }
}
