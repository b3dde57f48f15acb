// SPDX-License-Identifier: Apache-2.0

/// Parses a byte stream into frames; a frame may arrive in any number of pieces.
///
/// Holds at most one frame and what arrived behind it; a peer that announces more than a frame's limit is refused before
/// anything is stored.
package struct FrameDecoder: Sendable {
    private var buffer: [UInt8] = []
    private var start = 0

    package init() {}

    /// Bytes that wait for the rest of their frame.
    package var pendingBytes: Int { buffer.count - start }

    /// Adds bytes that arrived.
    package mutating func append(_ bytes: some Collection<UInt8>) {
        if start == buffer.count {
            buffer.removeAll(keepingCapacity: true)
            start = 0
        } else if start > ProtocolLimits.maximumPayload {
            buffer.removeFirst(start)
            start = 0
        }
        buffer.append(contentsOf: bytes)
    }

    /// The next whole frame, or nil when more bytes are needed.
    ///
    /// - Throws: `ProtocolError` when the bytes cannot be a frame; the decoder must not be used afterwards.
    package mutating func next() throws(ProtocolError) -> Frame? {
        guard pendingBytes >= Frame.headerSize else { return nil }
        let length = Int(buffer.littleEndian(UInt32.self, at: start))
        guard length <= ProtocolLimits.maximumPayload else { throw .payloadTooLong(length) }
        guard let type = FrameType(rawValue: buffer[start + 8]) else { throw .unknownFrameType(buffer[start + 8]) }
        guard buffer[start + 9] == 0, buffer[start + 10] == 0, buffer[start + 11] == 0 else {
            throw .reservedBytesNotZero
        }
        guard pendingBytes >= Frame.headerSize + length else { return nil }
        let stream = buffer.littleEndian(UInt32.self, at: start + 4)
        let payload = Array(buffer[(start + Frame.headerSize)..<(start + Frame.headerSize + length)])
        start += Frame.headerSize + length
        return Frame(type, stream: stream, payload: payload)
    }
}

extension [UInt8] {
    /// Reads a fixed-width integer; the caller has checked that the bytes are there.
    func littleEndian<Value: FixedWidthInteger>(_: Value.Type, at offset: Int) -> Value {
        var value: Value = 0
        for index in 0..<MemoryLayout<Value>.size {
            value |= Value(truncatingIfNeeded: self[offset + index]) << Value(index * 8)
        }
        return value
    }

    /// Appends a fixed-width integer, least significant byte first.
    mutating func append(littleEndian value: some FixedWidthInteger) {
        for index in 0..<(value.bitWidth / 8) {
            append(UInt8(truncatingIfNeeded: value >> (index * 8)))
        }
    }
}
