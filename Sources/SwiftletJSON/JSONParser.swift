// SPDX-License-Identifier: Apache-2.0

/// Makes values of a JSON text in one pass: the cost grows with the text's length, and depth and number of values are bounded.
///
/// Foundation's decoder tries each type in turn and keeps an error for each that did not fit, which made a text of a few megabytes
/// cost minutes.
package struct JSONParser {
    /// Why a text has no value.
    package enum Failure: Error {
        case malformed
        /// It has more values, or more levels of them, than are allowed.
        case tooLarge
        /// A number in it is too large for a `Double`.
        case numberOutOfRange
    }

    /// Levels of values that a text may have.
    package static let maximumDepth = 128
    /// Values that a text may have.
    package static let maximumValues = 100_000

    private var scanner: JSONScanner

    /// Reads a whole text.
    static func parse(_ bytes: UnsafeBufferPointer<UInt8>) throws(Failure) -> JSONValue {
        let limits = JSONScanner.Limits(depth: maximumDepth, values: maximumValues)
        var parser = JSONParser(scanner: JSONScanner(bytes, limits: limits))
        let value = try parser.value()
        try parser.scanner.finish()
        return value
    }

    private mutating func value() throws(Failure) -> JSONValue {
        switch try scanner.token() {
        case .objectStart: .object(try fields())
        case .arrayStart: .array(try elements())
        case .string(let string): .string(scanner.text(of: string))
        case .number(let number): try value(of: number)
        case .bool(let bool): .bool(bool)
        case .null: .null
        }
    }

    private mutating func elements() throws(Failure) -> [JSONValue] {
        var values: [JSONValue] = []
        var isFirst = true
        while try scanner.isNext(&isFirst, before: .array) { values.append(try value()) }
        return values
    }

    private mutating func fields() throws(Failure) -> [JSONValue.Field] {
        var fields: [JSONValue.Field] = []
        var isFirst = true
        while try scanner.isNext(&isFirst, before: .object) {
            let name = scanner.text(of: try scanner.fieldName())
            fields.append(.init(name: name, value: try value()))
        }
        return fields
    }

    private func value(of token: JSONScanner.NumberToken) throws(Failure) -> JSONValue {
        let text = String(decoding: scanner.bytes[token.range], as: UTF8.self)
        if token.isWhole, let whole = Int(text) { return .integer(whole) }
        guard let number = Double(text), number.isFinite else { throw .numberOutOfRange }
        // 1.0 equals 1.
        return Int(exactly: number).map { .integer($0) } ?? .number(number)
    }
}
