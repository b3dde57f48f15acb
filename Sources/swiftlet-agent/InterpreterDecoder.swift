// SPDX-License-Identifier: Apache-2.0

/// What an interpreter says; docs/agent-protocol.md.
struct InterpreterMessage {
    enum Kind: UInt8 {
        case ready = 1
        case prepared = 2
        case done = 3
    }

    var kind: Kind
    var exitCode: Int32 = 0
    /// Nanoseconds.
    var processorTime: UInt64 = 0
}

/// Cuts an interpreter's bytes into messages. User code may write there too, so nothing is taken on trust.
struct InterpreterDecoder {
    private var buffer: [UInt8] = []
    private(set) var isBroken = false

    mutating func append(_ bytes: ArraySlice<UInt8>) {
        if !isBroken { buffer += bytes }
    }

    mutating func next() -> InterpreterMessage? {
        guard !isBroken, buffer.count >= 5 else { return nil }
        let length = integer(at: 0, UInt32.self)
        guard let kind = InterpreterMessage.Kind(rawValue: buffer[4]), length == (kind == .done ? 14 : 1) else {
            isBroken = true
            return nil
        }
        guard buffer.count >= 4 + Int(length) else { return nil }
        var message = InterpreterMessage(kind: kind)
        if kind == .done {
            message.exitCode = integer(at: 6, Int32.self) & 0xff
            message.processorTime = integer(at: 10, UInt64.self)
        }
        buffer.removeFirst(4 + Int(length))
        return message
    }

    private func integer<Value: FixedWidthInteger>(at offset: Int, _: Value.Type) -> Value {
        (0..<MemoryLayout<Value>.size).reduce(0) {
            $0 | Value(truncatingIfNeeded: buffer[offset + $1]) << Value($1 * 8)
        }
    }
}
