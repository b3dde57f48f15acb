// SPDX-License-Identifier: Apache-2.0

/// The limits and constants that both ends of the control port agree on.
package enum ProtocolLimits {
    /// The version that `Hello` carries; the host refuses an agent that speaks another.
    package static let version: UInt16 = 3

    /// The largest payload of one frame, in bytes.
    package static let maximumPayload = 64 * 1024

    /// Bytes of `data` payload that a sender may have in flight on a stream before the first `credit`.
    package static let initialCredit = 256 * 1024

    /// The largest source text of one execution, in bytes.
    package static let maximumSource = 16 * 1024 * 1024

    /// The largest string field of a message, in bytes.
    package static let maximumString = 32 * 1024

    /// The largest JSON text of one rich result, in bytes.
    package static let maximumResult = 4 * 1024 * 1024

    /// Bytes of JSON that the results of one execution may have together.
    package static let maximumResultBytes = 16 * 1024 * 1024

    /// Results that one execution may have.
    package static let maximumResults = 256
}

/// What a frame means. Frames on stream 0 concern the connection, all others one execution or one operation
/// on a file.
package enum FrameType: UInt8, Sendable, CaseIterable {
    /// Agent to host, stream 0, once, as the first frame: `Hello`.
    case hello = 1
    /// Host to agent, stream 0: `Prepare`. No user code runs before it.
    case prepare = 2
    /// Agent to host, stream 0: `Prepared`, the answer to `prepare`.
    case prepared = 3
    /// Host to agent, stream 0: eight bytes to be echoed.
    case ping = 4
    /// Agent to host, stream 0: the eight bytes of `ping`.
    case pong = 5
    /// Host to agent: opens the stream with an `ExecuteRequest`.
    case execute = 6
    /// Either way: one byte of `Channel`, then bytes of that channel. Costs the sender credit, the channel byte excepted.
    case data = 7
    /// Either way: one byte of `Channel`; nothing more follows on it.
    case end = 8
    /// Either way: a `UInt32` of bytes that the receiver of this frame may send on top.
    case credit = 9
    /// Host to agent: one byte of `CancelReason`; the stream is to end, and its `exit` or `done` follows.
    case cancel = 10
    /// Agent to host: `ExitReport`; the last frame of its stream.
    case exit = 11
    /// Agent to host: `ExecutionRefusal`; the last frame of its stream, nothing ran.
    case refuse = 12
    /// Agent to host, stream 0, once: the interpreters are warm and wait. A template is frozen after it.
    case warm = 13
    /// Host to agent, stream 0, before `prepare`: a temporary `Prepare`. The agent executes the code paths of a first call and answers
    /// with `warm`, so that the first call of a waiting clone is faster.
    case rehearse = 14
    /// Host to agent: opens the stream with a `FileRequest`.
    case file = 15
    /// Agent to host: `FileStatus`; the file is open, and content may flow.
    case opened = 16
    /// Host to agent, once, after `opened` of a file that is read: the `FileRange` to send.
    case range = 17
    /// Agent to host: `FileDone`; the last frame of a file's stream.
    case done = 18
}

/// A byte stream inside a stream.
package enum Channel: UInt8, Sendable, CaseIterable {
    /// Host to agent: the source text to run.
    case source = 0
    case stdout = 1
    case stderr = 2
    /// Agent to host: rich results, each a `UInt32` length, little-endian, and so many bytes of JSON.
    case results = 3
    /// Either way: what is in a file, or the entries of a directory.
    case content = 4
}

/// Why the host ends an execution, or an operation on a file.
package enum CancelReason: UInt8, Sendable {
    case timeout = 1
    case cancelled = 2
}

/// One unit on the wire.
///
/// A header of twelve bytes, little-endian: payload length (`UInt32`), stream number (`UInt32`), type (`UInt8`), and three
/// bytes that are zero; then the payload.
package struct Frame: Equatable, Sendable {
    package static let headerSize = 12

    package var type: FrameType
    package var stream: UInt32
    package var payload: [UInt8]

    package init(_ type: FrameType, stream: UInt32 = 0, payload: [UInt8] = []) {
        self.type = type
        self.stream = stream
        self.payload = payload
    }

    /// The frame as bytes, ready to be sent. The payload must not exceed ``ProtocolLimits/maximumPayload``.
    package func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Frame.headerSize + payload.count)
        encode(into: &bytes)
        return bytes
    }

    /// Appends the frame's bytes.
    package func encode(into bytes: inout [UInt8]) {
        precondition(payload.count <= ProtocolLimits.maximumPayload, "A frame's payload is bounded")
        bytes.append(littleEndian: UInt32(payload.count))
        bytes.append(littleEndian: stream)
        bytes.append(type.rawValue)
        bytes.append(contentsOf: [0, 0, 0])
        bytes.append(contentsOf: payload)
    }

    /// The frames that carry `bytes` on a channel, each as large as allowed.
    package static func data(_ bytes: ArraySlice<UInt8>, channel: Channel, stream: UInt32) -> [Frame] {
        var frames: [Frame] = []
        var rest = bytes
        while !rest.isEmpty {
            let piece = rest.prefix(ProtocolLimits.maximumPayload - 1)
            rest = rest.dropFirst(piece.count)
            frames.append(Frame(.data, stream: stream, payload: [channel.rawValue] + piece))
        }
        return frames
    }
}

/// The peer broke the protocol; its connection cannot be trusted any further.
package enum ProtocolError: Error, Equatable, Sendable, CustomStringConvertible {
    case payloadTooLong(Int)
    case unknownFrameType(UInt8)
    case reservedBytesNotZero
    case truncatedMessage
    case trailingBytes(Int)
    case stringTooLong(Int)
    case invalidUTF8
    case invalidValue(field: String, value: UInt64)
    case unexpectedFrame(FrameType, stream: UInt32)
    case creditExceeded(stream: UInt32)
    case notPrepared(missing: Prepared.Confirmation)

    package var description: String {
        switch self {
        case .payloadTooLong(let count): "A frame announces a payload of \(count) bytes"
        case .unknownFrameType(let type): "Unknown frame type \(type)"
        case .reservedBytesNotZero: "Reserved header bytes are not zero"
        case .truncatedMessage: "A message ends before its last field"
        case .trailingBytes(let count): "\(count) bytes follow a message's last field"
        case .stringTooLong(let count): "A field announces \(count) bytes"
        case .invalidUTF8: "A text field is not valid UTF-8"
        case .invalidValue(let field, let value): "Field \(field) has the value \(value)"
        case .unexpectedFrame(let type, let stream): "Unexpected frame \(type) on stream \(stream)"
        case .creditExceeded(let stream): "Stream \(stream) sent more than its credit"
        case .notPrepared(let missing): "The guest did not confirm \(missing)"
        }
    }
}
