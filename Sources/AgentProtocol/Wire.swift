// SPDX-License-Identifier: Apache-2.0

/// Writes a message's fields: integers little-endian, byte strings behind a `UInt32` length.
package struct WireWriter: Sendable {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package mutating func write(_ value: some FixedWidthInteger) {
        bytes.append(littleEndian: value)
    }

    package mutating func write(_ value: [UInt8]) {
        bytes.append(littleEndian: UInt32(value.count))
        bytes.append(contentsOf: value)
    }

    package mutating func write(_ value: String) {
        write(Array(value.utf8))
    }
}

/// Reads a message's fields in the order in which they were written; every length is checked against what is there.
package struct WireReader: Sendable {
    private let bytes: [UInt8]
    private var offset = 0

    package init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    package mutating func read<Value: FixedWidthInteger>(_: Value.Type = Value.self) throws(ProtocolError) -> Value {
        let size = MemoryLayout<Value>.size
        guard bytes.count - offset >= size else { throw .truncatedMessage }
        defer { offset += size }
        return bytes.littleEndian(Value.self, at: offset)
    }

    package mutating func readBytes() throws(ProtocolError) -> [UInt8] {
        let count = Int(try read(UInt32.self))
        guard count <= ProtocolLimits.maximumString else { throw .stringTooLong(count) }
        guard bytes.count - offset >= count else { throw .truncatedMessage }
        defer { offset += count }
        return Array(bytes[offset..<(offset + count)])
    }

    package mutating func readString() throws(ProtocolError) -> String {
        let field = try readBytes()
        guard let text = String(validating: field, as: UTF8.self) else { throw .invalidUTF8 }
        return text
    }

    /// Whether everything was read.
    package var isAtEnd: Bool { offset == bytes.count }

    /// Ends the message: nothing may follow.
    package func finish() throws(ProtocolError) {
        guard offset == bytes.count else { throw .trailingBytes(bytes.count - offset) }
    }
}

/// A message with a wire form of its own.
package protocol WireMessage: Equatable, Sendable {
    /// Reads the message; throws when a field is missing, too long or out of range.
    init(from reader: inout WireReader) throws(ProtocolError)

    /// Writes the message's fields in the order in which `init(from:)` reads them.
    func write(to writer: inout WireWriter)
}

extension WireMessage {
    /// Reads a whole payload as this message.
    package init(payload: [UInt8]) throws(ProtocolError) {
        var reader = WireReader(payload)
        try self.init(from: &reader)
        try reader.finish()
    }

    /// The message as a frame's payload.
    package var payload: [UInt8] {
        var writer = WireWriter()
        write(to: &writer)
        return writer.bytes
    }
}
