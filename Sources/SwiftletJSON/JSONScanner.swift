// SPDX-License-Identifier: Apache-2.0

/// Finds the tokens of a JSON text (RFC 8259) in UTF-8, in one pass. It alone decides whether a text is valid; its users decide
/// what to do with the tokens. Any bytes are valid or refused; nothing traps.
///
/// A user calls `token` for a value. Behind the start of an array it calls `isNext` and `token` for each element, behind that of an object
/// `isNext`, `fieldName` and `token` for each field, and `finish` behind the whole.
struct JSONScanner {
    /// Bounds on a text.
    struct Limits {
        /// Levels of values.
        var depth: Int
        /// Values, names of fields not counted.
        var values = Int.max
    }

    /// A value, or the start of one that has others in it.
    enum Token {
        case arrayStart
        case objectStart
        case string(StringToken)
        case number(NumberToken)
        case bool(Bool)
        case null
    }

    /// A string's place in the text.
    struct StringToken {
        /// Its bytes without the quotes.
        let range: Range<Int>
        let hasEscapes: Bool
    }

    /// A number's place in the text.
    struct NumberToken {
        let range: Range<Int>
        /// Whether it has neither a fraction nor an exponent.
        let isWhole: Bool
    }

    /// The closing bracket of an array or an object.
    enum Closing: UInt8 {
        case array = 0x5d
        case object = 0x7d
    }

    let bytes: UnsafeBufferPointer<UInt8>
    private let limits: Limits
    private var index = 0
    private var depth = 0
    private var values = 0

    init(_ bytes: UnsafeBufferPointer<UInt8>, limits: Limits) {
        self.bytes = bytes
        self.limits = limits
    }

    /// The next value.
    mutating func token() throws(JSONParser.Failure) -> Token {
        guard depth < limits.depth, values < limits.values else { throw .tooLarge }
        values += 1
        skipSpace()
        switch next {
        case UInt8(ascii: "{"):
            start()
            return .objectStart
        case UInt8(ascii: "["):
            start()
            return .arrayStart
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try literal("true", .bool(true))
        case UInt8(ascii: "f"): return try literal("false", .bool(false))
        case UInt8(ascii: "n"): return try literal("null", .null)
        default: return .number(try number())
        }
    }

    /// Whether an array or object has another element; takes the comma before it, or the closing bracket.
    ///
    /// - Parameters:
    ///   - isFirst: whether no element came before; false afterwards.
    ///   - closing: of the innermost array or object.
    mutating func isNext(_ isFirst: inout Bool, before closing: Closing) throws(JSONParser.Failure) -> Bool {
        skipSpace()
        if take(closing.rawValue) {
            depth -= 1
            return false
        }
        if isFirst {
            isFirst = false
        } else {
            guard take(UInt8(ascii: ",")) else { throw .malformed }
        }
        return true
    }

    /// The name of a field, with the colon behind it.
    mutating func fieldName() throws(JSONParser.Failure) -> StringToken {
        skipSpace()
        guard next == UInt8(ascii: "\"") else { throw .malformed }
        let name = try string()
        skipSpace()
        guard take(UInt8(ascii: ":")) else { throw .malformed }
        return name
    }

    /// Ends the scan: nothing but white space may follow.
    mutating func finish() throws(JSONParser.Failure) {
        skipSpace()
        guard index == bytes.count else { throw .malformed }
    }

    private mutating func start() {
        index += 1
        depth += 1
    }

    // MARK: Bytes

    private var next: UInt8? { index < bytes.count ? bytes[index] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { index += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard next == byte else { return false }
        index += 1
        return true
    }

    // MARK: Literals and numbers

    private mutating func literal(_ word: StaticString, _ token: Token) throws(JSONParser.Failure) -> Token {
        let count = word.utf8CodeUnitCount
        guard index + count <= bytes.count,
            (0..<count).allSatisfy({ bytes[index + $0] == word.utf8Start[$0] })
        else { throw .malformed }
        index += count
        return token
    }

    private mutating func number() throws(JSONParser.Failure) -> NumberToken {
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
        return NumberToken(range: start..<index, isWhole: isWhole)
    }

    private mutating func digits() throws(JSONParser.Failure) {
        let start = index
        while let byte = next, (0x30...0x39).contains(byte) { index += 1 }
        guard index > start else { throw .malformed }
    }

    // MARK: Strings

    private mutating func string() throws(JSONParser.Failure) -> StringToken {
        index += 1
        let start = index
        var hasEscapes = false
        while let byte = next {
            switch byte {
            case UInt8(ascii: "\""):
                index += 1
                return StringToken(range: start..<(index - 1), hasEscapes: hasEscapes)
            case UInt8(ascii: "\\"):
                hasEscapes = true
                index += 1
                _ = try Self.escape(in: bytes, at: &index)
            case 0x00..<0x20:
                throw .malformed
            case 0x20..<0x80:
                index += 1
            default:
                let sequence = UTF8Sequence(at: index, in: bytes)
                guard sequence.isWellFormed else { throw .malformed }
                index += sequence.length
            }
        }
        throw .malformed
    }

    /// The text of a string that was scanned.
    func text(of string: StringToken) -> String {
        guard string.hasEscapes else { return String(decoding: bytes[string.range], as: UTF8.self) }
        // No escape is shorter than the character that it stands for.
        return String(unsafeUninitializedCapacity: string.range.count) { text in
            var count = 0
            var index = string.range.lowerBound
            while index < string.range.upperBound {
                let byte = bytes[index]
                index += 1
                if byte != UInt8(ascii: "\\") {
                    text[count] = byte
                    count += 1
                } else if let scalar = try? Self.escape(in: bytes, at: &index) {
                    // A string whose escapes are malformed is no token.
                    for unit in scalar.utf8 {
                        text[count] = unit
                        count += 1
                    }
                }
            }
            return count
        }
    }

    /// The character of an escape, and the index behind it.
    ///
    /// - Parameter index: behind the backslash.
    private static func escape(
        in bytes: UnsafeBufferPointer<UInt8>,
        at index: inout Int
    ) throws(JSONParser.Failure) -> Unicode.Scalar {
        guard index < bytes.count else { throw .malformed }
        let byte = bytes[index]
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try scalar(in: bytes, at: &index)
        default: throw .malformed
        }
    }

    /// A character behind `\u`, two of them for one beyond the basic plane; a surrogate without its pair is none.
    private static func scalar(
        in bytes: UnsafeBufferPointer<UInt8>,
        at index: inout Int
    ) throws(JSONParser.Failure) -> Unicode.Scalar {
        let high = try codeUnit(in: bytes, at: &index)
        guard (0xd800..<0xdc00).contains(high) else {
            guard let scalar = Unicode.Scalar(high) else { throw .malformed }
            return scalar
        }
        guard index + 1 < bytes.count, bytes[index] == UInt8(ascii: "\\"), bytes[index + 1] == UInt8(ascii: "u") else {
            throw .malformed
        }
        index += 2
        let low = try codeUnit(in: bytes, at: &index)
        guard (0xdc00..<0xe000).contains(low),
            let scalar = Unicode.Scalar(0x10000 + (high - 0xd800) << 10 + (low - 0xdc00))
        else { throw .malformed }
        return scalar
    }

    private static func codeUnit(
        in bytes: UnsafeBufferPointer<UInt8>,
        at index: inout Int
    ) throws(JSONParser.Failure) -> UInt32 {
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
