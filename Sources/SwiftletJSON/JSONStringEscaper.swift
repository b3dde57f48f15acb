// SPDX-License-Identifier: Apache-2.0

package import NIOCore

/// Escapes bytes, which need not be UTF-8, as the content of a JSON string, piece by piece.
///
/// Ill-formed UTF-8 becomes U+FFFD, one for each maximal ill-formed part, as `String(decoding:as:)` does it; a character that is
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

    /// Ends the string: an incomplete character becomes U+FFFD.
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
                let part = UTF8Sequence(at: index, in: bytes)
                if part.isWellFormed {
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
}
