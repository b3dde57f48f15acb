// SPDX-License-Identifier: Apache-2.0

package import NIOCore

/// Turns bytes that may be no text into the inside of a JSON string, piece by piece.
///
/// What is not UTF-8 becomes U+FFFD, one for each maximal ill-formed part, as `String(decoding:as:)` does it; a character that is
/// cut by a piece's end is held back until the next piece.
package struct JSONStringEscaper: Sendable {
    private static let hexadecimal = Array("0123456789abcdef".utf8)
    private static let replacement: [UInt8] = [0xef, 0xbf, 0xbd]

    /// The beginning of a character whose rest has not come.
    private var pending: [UInt8] = []

    package init() {}

    /// Appends the escaped form of a piece.
    package mutating func escape(_ bytes: some Collection<UInt8>, into buffer: inout ByteBuffer) {
        if pending.isEmpty {
            let done: Void? = bytes.withContiguousStorageIfAvailable { escapeAll($0, into: &buffer) }
            if done != nil { return }
        }
        let joined = pending + Array(bytes)
        pending = []
        joined.withUnsafeBufferPointer { escapeAll($0, into: &buffer) }
    }

    /// Ends the string: a character that was begun and not finished is none.
    package mutating func finish(into buffer: inout ByteBuffer) {
        if !pending.isEmpty { buffer.writeBytes(Self.replacement) }
        pending = []
    }

    private mutating func escapeAll(_ bytes: UnsafeBufferPointer<UInt8>, into buffer: inout ByteBuffer) {
        var index = 0
        while index < bytes.count {
            let start = index
            while index < bytes.count, Self.isPlain(bytes[index]) { index += 1 }
            if index > start {
                buffer.writeBytes(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[start..<index]))
            }
            guard index < bytes.count else { return }
            let byte = bytes[index]
            if byte < 0x80 {
                Self.writeEscape(of: byte, into: &buffer)
                index += 1
            } else {
                let part = Self.character(at: index, in: bytes)
                if part.isWhole {
                    buffer.writeBytes(bytes[index..<(index + part.length)])
                } else if index + part.length == bytes.count, part.mayContinue {
                    pending = Array(bytes[index...])
                    return
                } else {
                    buffer.writeBytes(Self.replacement)
                }
                index += part.length
            }
        }
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte < 0x7f && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
    }

    private static func writeEscape(of byte: UInt8, into buffer: inout ByteBuffer) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): buffer.writeBytes([UInt8(ascii: "\\"), byte])
        case UInt8(ascii: "\n"): buffer.writeStaticString("\\n")
        case UInt8(ascii: "\r"): buffer.writeStaticString("\\r")
        case UInt8(ascii: "\t"): buffer.writeStaticString("\\t")
        case 0x7f: buffer.writeInteger(byte)
        default:
            buffer.writeStaticString("\\u00")
            buffer.writeBytes([hexadecimal[Int(byte >> 4)], hexadecimal[Int(byte & 0xf)]])
        }
    }

    /// The well-formed character, or the maximal part of one, at an index. Source: Unicode 15, table 3-7.
    private static func character(
        at index: Int,
        in bytes: UnsafeBufferPointer<UInt8>
    ) -> (length: Int, isWhole: Bool, mayContinue: Bool) {
        let lead = bytes[index]
        let needed: Int
        var range: ClosedRange<UInt8> = 0x80...0xbf
        switch lead {
        case 0xc2...0xdf: needed = 1
        case 0xe0: (needed, range) = (2, 0xa0...0xbf)
        case 0xed: (needed, range) = (2, 0x80...0x9f)
        case 0xe1...0xef: needed = 2
        case 0xf0: (needed, range) = (3, 0x90...0xbf)
        case 0xf4: (needed, range) = (3, 0x80...0x8f)
        case 0xf1...0xf3: needed = 3
        default: return (1, false, false)
        }
        var length = 1
        while length <= needed {
            guard index + length < bytes.count else { return (length, false, true) }
            guard range.contains(bytes[index + length]) else { return (length, false, false) }
            range = 0x80...0xbf
            length += 1
        }
        return (length, true, false)
    }
}
