// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import NIOCore

/// Any JSON, as read from a request or as written into a response.
package enum JSONValue: Equatable, Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    /// Fields in the order in which they are written.
    case object([Field])

    package struct Field: Equatable, Sendable {
        package let name: String
        package let value: JSONValue

        package init(name: String, value: JSONValue) {
            self.name = name
            self.value = value
        }
    }

    /// Reads a text.
    ///
    /// - Throws: `JSONParser.Failure` when it is no JSON, nested deeper than 128 levels, or of more than 100,000 values.
    package init(parsing bytes: ByteBuffer) throws(JSONParser.Failure) {
        let result: Result<JSONValue, JSONParser.Failure> = bytes.withUnsafeReadableBytes { raw in
            raw.withMemoryRebound(to: UInt8.self) { bytes in
                do throws(JSONParser.Failure) {
                    return .success(try JSONParser.parse(bytes))
                } catch {
                    return .failure(error)
                }
            }
        }
        self = try result.get()
    }

    /// The value of an object's field; nil when there is none.
    package subscript(name: String) -> JSONValue? {
        guard case .object(let fields) = self else { return nil }
        return fields.last { $0.name == name }?.value
    }

    /// Appends the value's text.
    package func write(to buffer: inout ByteBuffer) {
        switch self {
        case .null: buffer.writeStaticString("null")
        case .bool(let value): buffer.writeString(value ? "true" : "false")
        case .integer(let value): buffer.writeString(String(value))
        case .number(let value): buffer.writeString(value.isFinite ? String(value) : "null")
        case .string(let value): Self.write(value, to: &buffer)
        case .array(let values):
            buffer.writeStaticString("[")
            for (index, value) in values.enumerated() {
                if index > 0 { buffer.writeStaticString(",") }
                value.write(to: &buffer)
            }
            buffer.writeStaticString("]")
        case .object(let fields):
            buffer.writeStaticString("{")
            for (index, field) in fields.enumerated() {
                if index > 0 { buffer.writeStaticString(",") }
                Self.write(field.name, to: &buffer)
                buffer.writeStaticString(":")
                field.value.write(to: &buffer)
            }
            buffer.writeStaticString("}")
        }
    }

    private static func write(_ text: String, to buffer: inout ByteBuffer) {
        buffer.writeStaticString("\"")
        var escaper = JSONStringEscaper()
        escaper.escape(text.utf8, into: &buffer)
        escaper.finish(into: &buffer)
        buffer.writeStaticString("\"")
    }

    /// The same with the fields of all objects in the order of their names.
    package var sorted: JSONValue {
        switch self {
        case .array(let values): .array(values.map(\.sorted))
        case .object(let fields):
            .object(fields.sorted { $0.name < $1.name }.map { Field(name: $0.name, value: $0.value.sorted) })
        case .null, .bool, .integer, .number, .string: self
        }
    }

    /// The value as a text.
    package var text: String {
        var buffer = ByteBuffer()
        write(to: &buffer)
        return String(buffer: buffer)
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral {
    package init(stringLiteral value: String) {
        self = .string(value)
    }

    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(elements.map { Field(name: $0.0, value: $0.1) })
    }

    package init(arrayLiteral elements: JSONValue...) {
        self = .array(elements)
    }

    /// A text, or null.
    package init(_ value: String?) {
        self = value.map { .string($0) } ?? .null
    }

    /// A number, or null.
    package init(_ value: Double?) {
        self = value.map { .number($0) } ?? .null
    }

    /// A moment as the contract writes it, UTC without a zone, or null.
    package init(_ value: Date?) {
        self = value.map { .string($0.contractText) } ?? .null
    }
}

extension Date {
    /// `2026-01-01T00:00:00.123456`, UTC.
    package var contractText: String {
        let micro = Int64((timeIntervalSince1970 * 1e6).rounded())
        var seconds = time_t(micro / 1_000_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ value: some BinaryInteger, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let day = "\(padded(parts.tm_year + 1900, 4))-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
        let time = "\(padded(parts.tm_hour, 2)):\(padded(parts.tm_min, 2)):\(padded(parts.tm_sec, 2))"
        return "\(day)T\(time).\(padded(micro % 1_000_000, 6))"
    }
}
