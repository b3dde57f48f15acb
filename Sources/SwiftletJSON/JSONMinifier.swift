// SPDX-License-Identifier: Apache-2.0

/// Checks JSON that comes from a guest, and copies it without the white space between its tokens: one line, and no byte of a token
/// changed.
package struct JSONMinifier {
    /// As deep as the parsers of clients go.
    private static let limits = JSONScanner.Limits(depth: 501)

    private var scanner: JSONScanner
    private var output: [UInt8] = []

    /// The names of an object's fields and the text of each value; nil when the bytes are no such object, or name a field twice.
    package static func fields(of input: [UInt8]) -> [(name: String, value: [UInt8])]? {
        input.withUnsafeBufferPointer { bytes in
            var minifier = JSONMinifier(scanner: JSONScanner(bytes, limits: limits))
            // Malformed and too deep texts both give nil.
            return try? minifier.fields()
        }
    }

    private mutating func fields() throws(JSONParser.Failure) -> [(name: String, value: [UInt8])] {
        guard case .objectStart = try scanner.token() else { throw .malformed }
        var fields: [(name: String, value: [UInt8])] = []
        var names: Set<String> = []
        var isFirst = true
        while try scanner.isNext(&isFirst, before: .object) {
            let name = scanner.text(of: try scanner.fieldName())
            guard names.insert(name).inserted else { throw .malformed }
            output = []
            try copyValue()
            fields.append((name, output))
        }
        try scanner.finish()
        return fields
    }

    private mutating func copyValue() throws(JSONParser.Failure) {
        switch try scanner.token() {
        case .objectStart:
            output.append(UInt8(ascii: "{"))
            var isFirst = true
            while try isNext(&isFirst, before: .object) {
                copy(try scanner.fieldName())
                output.append(UInt8(ascii: ":"))
                try copyValue()
            }
        case .arrayStart:
            output.append(UInt8(ascii: "["))
            var isFirst = true
            while try isNext(&isFirst, before: .array) { try copyValue() }
        case .string(let string): copy(string)
        case .number(let number): output += scanner.bytes[number.range]
        case .bool(let bool): output += bool ? Array("true".utf8) : Array("false".utf8)
        case .null: output += Array("null".utf8)
        }
    }

    /// As of the scanner, with the comma or the closing bracket copied.
    private mutating func isNext(
        _ isFirst: inout Bool,
        before closing: JSONScanner.Closing
    ) throws(JSONParser.Failure) -> Bool {
        let wasFirst = isFirst
        let isNext = try scanner.isNext(&isFirst, before: closing)
        if !isNext {
            output.append(closing.rawValue)
        } else if !wasFirst {
            output.append(UInt8(ascii: ","))
        }
        return isNext
    }

    private mutating func copy(_ string: JSONScanner.StringToken) {
        // With its quotes.
        output += scanner.bytes[(string.range.lowerBound - 1)..<(string.range.upperBound + 1)]
    }
}
