// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import SwiftletTestSupport
import Testing

@Suite struct InterpreterDecoderTests {
    private let ready: [UInt8] = [1, 0, 0, 0, 1]
    private let done: [UInt8] = [14, 0, 0, 0, 3, 2, 3, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]

    @Test func messagesAreFoundByteForByte() {
        var decoder = InterpreterDecoder()
        var found: [InterpreterMessage] = []
        for byte in ready + done + ready {
            decoder.append([byte])
            while let message = decoder.next() { found.append(message) }
        }
        #expect(found.map(\.kind) == [.ready, .done, .ready])
        #expect(found[1] == InterpreterMessage(kind: .done, exitCode: 3, processorTime: 5))
    }

    @Test func aResultCarriesItsBytes() {
        var decoder = InterpreterDecoder()
        let long = [UInt8](repeating: 7, count: ProtocolLimits.maximumResult)
        decoder.append([3, 0, 0, 0, 4, 8, 9] + [1, 0, 64, 0, 4] + long + done)
        #expect(decoder.next() == InterpreterMessage(kind: .result, payload: [8, 9]))
        #expect(decoder.next() == InterpreterMessage(kind: .result, payload: long))
        #expect(decoder.next()?.kind == .done)
    }

    @Test(
        arguments: [
            [0, 0, 0, 0, 1], [2, 0, 0, 0, 1], [255, 255, 255, 255, 3], [1, 0, 0, 0, 0], [1, 0, 0, 0, 4],
            [1, 0, 0, 0, 3], [2, 0, 64, 0, 4], [255, 255, 255, 255, 4], [2, 0, 0, 0, 2], [1, 0, 0, 0, 5],
        ] as [[UInt8]]
    )
    func whatIsNoMessageBreaksTheDecoderForGood(bytes: [UInt8]) {
        var decoder = InterpreterDecoder()
        decoder.append(bytes[...])
        #expect(decoder.next() == nil)
        #expect(decoder.isBroken)
        decoder.append(ready[...])
        #expect(decoder.next() == nil)
    }

    @Test func anyBytesAreMessagesOrRefused() {
        var generator = SeededGenerator(seed: 3)
        for _ in 0..<50_000 {
            var decoder = InterpreterDecoder()
            var bytes = done
            bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(in: 0...255, using: &generator)
            decoder.append(bytes[...])
            while let message = decoder.next() { #expect((0...255).contains(message.exitCode)) }
        }
    }
}
