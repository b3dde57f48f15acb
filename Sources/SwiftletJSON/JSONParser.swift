// SPDX-License-Identifier: Apache-2.0

/// Reads a JSON text (RFC 8259) in one pass, whoever wrote it: what it costs grows with the text's length and is bounded in depth and number.
///
/// Foundation's decoder tries each type in turn and keeps an error for each that did not fit, which made a text of a few megabytes
/// cost minutes.
package struct JSONParser {
    package enum Failure: Error {
        case malformed
        /// More values than anybody needs.
        case tooLarge
    }

    package static let maximumDepth = 128
    package static let maximumValues = 100_000

    private let bytes: UnsafeBufferPointer<UInt8>
    private var index = 0
    private var values = 0

    private init(_ bytes: UnsafeBufferPointer<UInt8>) {
        self.bytes = bytes
    }

    /// Reads a whole text.
    static func parse(_ bytes: UnsafeBufferPointer<UInt8>) throws(Failure) -> JSONValue {
        var parser = JSONParser(bytes)
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.index == bytes.count else { throw .malformed }
        return value
    }

    // MARK: Values

    private var next: UInt8? { index < bytes.count ? bytes[index] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { index += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard next == byte else { return false }
        index += 1
        return true
    }

    private mutating func value(depth: Int) throws(Failure) -> JSONValue {
        guard depth < Self.maximumDepth else { throw .tooLarge }
        values += 1
        guard values <= Self.maximumValues else { throw .tooLarge }
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return .object(try object(depth: depth))
        case UInt8(ascii: "["): return .array(try array(depth: depth))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws(Failure) -> JSONValue {
        let count = word.utf8CodeUnitCount
        guard index + count <= bytes.count,
            (0..<count).allSatisfy({ bytes[index + $0] == word.utf8Start[$0] })
        else { throw .malformed }
        index += count
        return value
    }

    private mutating func array(depth: Int) throws(Failure) -> [JSONValue] {
        index += 1
        var values: [JSONValue] = []
        skipSpace()
        if take(UInt8(ascii: "]")) { return values }
        while true {
            values.append(try value(depth: depth + 1))
            skipSpace()
            if take(UInt8(ascii: "]")) { return values }
            guard take(UInt8(ascii: ",")) else { throw .malformed }
        }
    }

    private mutating func object(depth: Int) throws(Failure) -> [JSONValue.Field] {
        index += 1
        var fields: [JSONValue.Field] = []
        skipSpace()
        if take(UInt8(ascii: "}")) { return fields }
        while true {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw .malformed }
            let name = try string()
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw .malformed }
            fields.append(.init(name: name, value: try value(depth: depth + 1)))
            skipSpace()
            if take(UInt8(ascii: "}")) { return fields }
            guard take(UInt8(ascii: ",")) else { throw .malformed }
        }
    }

    // MARK: Numbers

    private mutating func digits() throws(Failure) {
        let start = index
        while let byte = next, (0x30...0x39).contains(byte) { index += 1 }
        guard index > start else { throw .malformed }
    }

    private mutating func number() throws(Failure) -> JSONValue {
        let start = index
        _ = take(UInt8(ascii: "-"))
        // No digit follows a leading zero.
        if !take(UInt8(ascii: "0")) { try digits() }
        var isWhole = true
        if take(UInt8(ascii: ".")) {
            isWhole = false
            try digits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            isWhole = false
            index += 1
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            try digits()
        }
        let text = String(decoding: bytes[start..<index], as: UTF8.self)
        if isWhole, let whole = Int(text) { return .integer(whole) }
        guard let number = Double(text), number.isFinite else { throw .malformed }
        // 1.0 is what 1 is.
        return Int(exactly: number).map { .integer($0) } ?? .number(number)
    }

    // MARK: Strings

    private mutating func string() throws(Failure) -> String {
        index += 1
        let start = index
        var escaped: [UInt8]?
        while let byte = next {
            switch byte {
            case UInt8(ascii: "\""):
                let text =
                    if let escaped {
                        String(validating: escaped, as: UTF8.self)
                    } else {
                        String(validating: bytes[start..<index], as: UTF8.self)
                    }
                index += 1
                guard let text else { throw .malformed }
                return text
            case UInt8(ascii: "\\"):
                if escaped == nil { escaped = Array(bytes[start..<index]) }
                index += 1
                try escape(into: &escaped)
            case 0x00..<0x20:
                throw .malformed
            default:
                escaped?.append(byte)
                index += 1
            }
        }
        throw .malformed
    }

    private mutating func escape(into text: inout [UInt8]?) throws(Failure) {
        guard let byte = next else { throw .malformed }
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text?.append(byte)
        case UInt8(ascii: "b"): text?.append(0x08)
        case UInt8(ascii: "f"): text?.append(0x0c)
        case UInt8(ascii: "n"): text?.append(0x0a)
        case UInt8(ascii: "r"): text?.append(0x0d)
        case UInt8(ascii: "t"): text?.append(0x09)
        case UInt8(ascii: "u"): text?.append(contentsOf: Array(String(try scalar()).utf8))
        default: throw .malformed
        }
    }

    /// A character behind `\u`, two of them for one beyond the basic plane; half of such a pair is none.
    private mutating func scalar() throws(Failure) -> Unicode.Scalar {
        let high = try hexadecimal()
        guard (0xd800..<0xdc00).contains(high) else {
            guard let scalar = Unicode.Scalar(high) else { throw .malformed }
            return scalar
        }
        guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else { throw .malformed }
        let low = try hexadecimal()
        guard (0xdc00..<0xe000).contains(low),
            let scalar = Unicode.Scalar(0x10000 + (high - 0xd800) << 10 + (low - 0xdc00))
        else { throw .malformed }
        return scalar
    }

    private mutating func hexadecimal() throws(Failure) -> UInt32 {
        guard index + 4 <= bytes.count else { throw .malformed }
        var value: UInt32 = 0
        for byte in bytes[index..<index + 4] {
            let digit: UInt8 =
                switch byte {
                case 0x30...0x39: byte - 0x30
                case 0x41...0x46: byte - 0x41 + 10
                case 0x61...0x66: byte - 0x61 + 10
                default: throw .malformed
                }
            value = value << 4 | UInt32(digit)
        }
        index += 4
        return value
    }
}
