// SPDX-License-Identifier: Apache-2.0

/// Checks JSON that comes from a guest, and copies it without the white space between its parts: one line, and no byte of a value
/// changed. Any bytes are either JSON or refused; nothing traps.
package struct JSONMinifier {
    /// As deep as the parsers of clients go.
    private static let maximumDepth = 500

    private let input: [UInt8]
    private var index = 0
    private var output: [UInt8] = []

    /// - Parameter input: UTF-8, which the caller has checked.
    private init(_ input: [UInt8]) {
        self.input = input
    }

    /// The names of an object's fields and the text of each value; nil when the bytes are no such object, or name a field twice.
    package static func fields(of input: [UInt8]) -> [(name: String, value: [UInt8])]? {
        var compactor = JSONMinifier(input)
        return compactor.topFields()
    }

    private mutating func topFields() -> [(name: String, value: [UInt8])]? {
        guard next() == UInt8(ascii: "{") else { return nil }
        var fields: [(name: String, value: [UInt8])] = []
        var names: Set<String> = []
        if next(is: UInt8(ascii: "}")) { return isAtEnd ? fields : nil }
        repeat {
            output = []
            guard next() == UInt8(ascii: "\""), string() else { return nil }
            let name = String(decoding: output.dropFirst().dropLast(), as: UTF8.self)
            output = []
            guard names.insert(name).inserted, next() == UInt8(ascii: ":"), value(depth: 1) else { return nil }
            fields.append((name, output))
        } while next(is: UInt8(ascii: ","))
        return next() == UInt8(ascii: "}") && isAtEnd ? fields : nil
    }

    // MARK: Values

    private mutating func value(depth: Int) -> Bool {
        guard depth <= Self.maximumDepth, let first = next() else { return false }
        switch first {
        case UInt8(ascii: "\""): return string()
        case UInt8(ascii: "{"): return container(end: UInt8(ascii: "}"), depth: depth)
        case UInt8(ascii: "["): return container(end: UInt8(ascii: "]"), depth: depth)
        case UInt8(ascii: "t"): return word("true")
        case UInt8(ascii: "f"): return word("false")
        case UInt8(ascii: "n"): return word("null")
        default:
            index -= 1
            return number()
        }
    }

    /// An object or array behind its opening bracket.
    private mutating func container(end: UInt8, depth: Int) -> Bool {
        let isObject = end == UInt8(ascii: "}")
        output.append(isObject ? UInt8(ascii: "{") : UInt8(ascii: "["))
        var isFirst = true
        while true {
            if isFirst, next(is: end) { break }
            if isObject {
                guard next() == UInt8(ascii: "\""), string(), next() == UInt8(ascii: ":") else { return false }
                output.append(UInt8(ascii: ":"))
            }
            guard value(depth: depth + 1) else { return false }
            isFirst = false
            if next(is: end) { break }
            guard next() == UInt8(ascii: ",") else { return false }
            output.append(UInt8(ascii: ","))
        }
        output.append(end)
        return true
    }

    /// A string behind its opening quote.
    private mutating func string() -> Bool {
        let start = index - 1
        while index < input.count {
            switch input[index] {
            case UInt8(ascii: "\""):
                index += 1
                output += input[start..<index]
                return true
            case UInt8(ascii: "\\"):
                guard escape() else { return false }
            case 0..<0x20:
                return false
            default:
                index += 1
            }
        }
        return false
    }

    private mutating func escape() -> Bool {
        guard index + 1 < input.count else { return false }
        let kind = input[index + 1]
        guard kind == UInt8(ascii: "u") else {
            index += 2
            return #""\/bfnrt"#.utf8.contains(kind)
        }
        guard let unit = codeUnit(at: index + 2) else { return false }
        index += 6
        switch unit {
        case 0xd800..<0xdc00:
            // Half a character is no text, and many a parser refuses the whole for it.
            guard index + 1 < input.count, input[index] == UInt8(ascii: "\\"), input[index + 1] == UInt8(ascii: "u"),
                let low = codeUnit(at: index + 2), (0xdc00..<0xe000).contains(low)
            else { return false }
            index += 6
            return true
        case 0xdc00..<0xe000: return false
        default: return true
        }
    }

    private func codeUnit(at start: Int) -> UInt32? {
        guard start + 4 <= input.count else { return nil }
        var unit: UInt32 = 0
        for byte in input[start..<(start + 4)] {
            guard let digit = Character(UnicodeScalar(byte)).hexDigitValue, byte < 0x80 else { return nil }
            unit = unit << 4 | UInt32(digit)
        }
        return unit
    }

    private mutating func number() -> Bool {
        let start = index
        if peek == UInt8(ascii: "-") { index += 1 }
        let isZero = peek == UInt8(ascii: "0")
        let count = digits()
        guard count > 0, !isZero || count == 1 else { return false }
        if peek == UInt8(ascii: ".") {
            index += 1
            guard digits() > 0 else { return false }
        }
        if peek == UInt8(ascii: "e") || peek == UInt8(ascii: "E") {
            index += 1
            if peek == UInt8(ascii: "+") || peek == UInt8(ascii: "-") { index += 1 }
            guard digits() > 0 else { return false }
        }
        output += input[start..<index]
        return true
    }

    private mutating func digits() -> Int {
        let start = index
        while let byte = peek, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { index += 1 }
        return index - start
    }

    private mutating func word(_ word: StaticString) -> Bool {
        let isThere = word.withUTF8Buffer { input[(index - 1)...].starts(with: $0) }
        guard isThere else { return false }
        index += word.utf8CodeUnitCount - 1
        word.withUTF8Buffer { output.append(contentsOf: $0) }
        return true
    }

    // MARK: Bytes

    private var peek: UInt8? { index < input.count ? input[index] : nil }

    private mutating func skipSpace() {
        while let byte = peek, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { index += 1 }
    }

    /// Takes the next byte that is no white space.
    private mutating func next() -> UInt8? {
        skipSpace()
        defer { index += 1 }
        return peek
    }

    /// Takes the next byte that is no white space if it is this one.
    private mutating func next(is byte: UInt8) -> Bool {
        skipSpace()
        guard peek == byte else { return false }
        index += 1
        return true
    }

    private var isAtEnd: Bool {
        mutating get {
            skipSpace()
            return index == input.count
        }
    }
}
