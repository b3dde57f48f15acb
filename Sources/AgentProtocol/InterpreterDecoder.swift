// SPDX-License-Identifier: Apache-2.0

/// A message of an interpreter to the agent; docs/agent-protocol.md.
package struct InterpreterMessage: Equatable, Sendable {
    package enum Kind: UInt8, Sendable {
        case ready = 1
        case prepared = 2
        case done = 3
        /// A rich result of the running call; there may be many before `done`.
        case result = 4
    }

    package var kind: Kind
    /// 0...255.
    package var exitCode: Int32
    /// Nanoseconds.
    package var processorTime: UInt64
    /// A result's JSON text, if it is one.
    package var payload: [UInt8]

    package init(kind: Kind, exitCode: Int32 = 0, processorTime: UInt64 = 0, payload: [UInt8] = []) {
        self.kind = kind
        self.payload = payload
        self.exitCode = exitCode
        self.processorTime = processorTime
    }
}

/// Parses the bytes of an interpreter into messages. User code can write to the same socket, so every field is checked.
package struct InterpreterDecoder: Sendable {
    private static let doneLength: UInt32 = 14

    private var buffer: [UInt8] = []
    /// Invalid bytes arrived; nothing more is parsed.
    package private(set) var isBroken = false

    package init() {}

    /// Adds bytes that arrived.
    package mutating func append(_ bytes: ArraySlice<UInt8>) {
        if !isBroken { buffer += bytes }
    }

    /// The next whole message; nil when more bytes are needed, or when the decoder is broken.
    package mutating func next() -> InterpreterMessage? {
        guard !isBroken, buffer.count >= 5 else { return nil }
        let length = buffer.littleEndian(UInt32.self, at: 0)
        guard let kind = InterpreterMessage.Kind(rawValue: buffer[4]), Self.lengths(of: kind).contains(length) else {
            isBroken = true
            return nil
        }
        guard buffer.count >= 4 + Int(length) else { return nil }
        var message = InterpreterMessage(kind: kind)
        if kind == .done {
            message.exitCode = buffer.littleEndian(Int32.self, at: 6) & 0xff
            message.processorTime = buffer.littleEndian(UInt64.self, at: 10)
        }
        if kind == .result { message.payload = Array(buffer[5..<(4 + Int(length))]) }
        buffer.removeFirst(4 + Int(length))
        return message
    }

    /// The valid values of a message's length field, which counts the byte of the kind and the fields.
    private static func lengths(of kind: InterpreterMessage.Kind) -> ClosedRange<UInt32> {
        switch kind {
        case .ready, .prepared: 1...1
        case .done: doneLength...doneLength
        case .result: 2...UInt32(ProtocolLimits.maximumResult + 1)
        }
    }
}
