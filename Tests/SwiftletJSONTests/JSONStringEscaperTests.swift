// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import SwiftletJSON
import SwiftletTestSupport
import Testing

@Suite struct JSONStringEscaperTests {
    private func escape(_ bytes: [UInt8], pieces: [Int]) -> String {
        var escaper = JSONStringEscaper()
        var buffer = ByteBuffer(string: "\"")
        var rest = bytes[...]
        for piece in pieces {
            escaper.escape(rest.prefix(piece), into: &buffer)
            rest = rest.dropFirst(piece)
        }
        escaper.escape(rest, into: &buffer)
        escaper.finish(into: &buffer)
        buffer.writeString("\"")
        return String(buffer: buffer)
    }

    /// What a JSON parser reads back.
    private func roundTrip(_ bytes: [UInt8], pieces: [Int] = []) throws -> String {
        let text = escape(bytes, pieces: pieces)
        return try JSONDecoder().decode([String].self, from: Data("[\(text)]".utf8))[0]
    }

    @Test func everyByteIsReadBackAsSwiftReadsIt() throws {
        for byte in UInt8.min...UInt8.max {
            #expect(try roundTrip([byte]) == String(decoding: [byte], as: UTF8.self))
        }
    }

    private static let sequences: [[UInt8]] = [
        Array("é€🎉".utf8), [0xc0, 0x80], [0xc1, 0xbf], [0xe0, 0x80, 0x80], [0xed, 0xa0, 0x80],
        [0xf4, 0x90, 0x80, 0x80],
        [0xf5, 0x80, 0x80, 0x80], [0xe2, 0x82], [0xf0, 0x9f, 0x8e], [0xf0, 0x9f, 0x41], [0x80, 0xbf],
        [0xc3, 0xc3, 0xa9],
        [0xe2, 0x28, 0xa1], [0xf0, 0x80, 0x80], [0xef, 0xbf, 0xbd], [0x22, 0x5c, 0x0a, 0x7f],
    ]

    @Test(arguments: sequences)
    func anySplitOfASequenceGivesTheSame(bytes: [UInt8]) throws {
        let padded = Array("a".utf8) + bytes + Array("b".utf8)
        let expected = String(decoding: padded, as: UTF8.self)
        for first in 0...padded.count {
            for second in 0...(padded.count - first) {
                #expect(try roundTrip(padded, pieces: [first, second]) == expected)
            }
        }
    }

    @Test func randomBytesInRandomPiecesGiveTheSame() throws {
        var generator = SeededGenerator(seed: 1)
        for _ in 0..<2_000 {
            let bytes = (0..<40).map { _ in
                Bool.random(using: &generator) ? UInt8.random(in: 0x80...0xff) : UInt8.random(in: 0...0x7f)
            }
            let pieces = (0..<6).map { _ in Int.random(in: 0...9, using: &generator) }
            #expect(try roundTrip(bytes, pieces: pieces) == String(decoding: bytes, as: UTF8.self))
        }
    }
}
