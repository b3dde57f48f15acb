// SPDX-License-Identifier: Apache-2.0

import NIOCore
import SwiftletJSON

/// Reads the fields of a JSON object, and collects their problems.
///
/// Types, ranges and messages are those of pydantic's lax mode, which clients of this API know: `"30"` and `30.0` are integers.
struct BodyReader {
    /// Problems that are reported at most.
    private static let maximumProblems = 100

    private let body: JSONValue
    private(set) var problems: [ValidationFailure.Problem] = []

    /// Parses a body.
    ///
    /// - Throws: `ValidationFailure` when it is no JSON object.
    init(_ bytes: ByteBuffer) throws {
        do {
            body = try JSONValue(parsing: bytes)
        } catch {
            let message =
                switch error {
                case .malformed: "JSON decode error"
                case .numberOutOfRange: "JSON decode error: a number is out of range"
                case .tooLarge:
                    "JSON decode error: at most \(JSONParser.maximumValues) values, "
                        + "and \(JSONParser.maximumDepth) levels of them"
                }
            throw ValidationFailure(problems: [
                .init(type: "json_invalid", location: ["body", .integer(0)], message: message)
            ])
        }
        guard case .object = body else {
            let message = "Input should be a valid dictionary or object to extract fields from"
            throw ValidationFailure(problems: [
                .init(type: "model_attributes_type", location: ["body"], message: message)
            ])
        }
    }

    /// Ends the reading.
    ///
    /// - Throws: `ValidationFailure` with all problems, if there were any.
    func finish() throws {
        if !problems.isEmpty { throw ValidationFailure(problems: problems) }
    }

    /// The body as a text that is the same however its fields were ordered, spaced or left out as null.
    func canonicalText(without names: Set<String>) -> String {
        guard case .object(let fields) = body else { return body.sorted.text }
        return JSONValue.object(fields.filter { !names.contains($0.name) && $0.value != .null }).sorted.text
    }

    /// A field that is there and not null.
    private func present(_ name: String) -> JSONValue? {
        guard let value = body[name], value != .null else { return nil }
        return value
    }

    /// Whether a field is there and null.
    func isNull(_ name: String) -> Bool { body[name] == .null }

    mutating func report(_ name: String, _ type: String, _ message: String, _ input: JSONValue? = nil) {
        report(at: [.string(name)], type, message, input)
    }

    private mutating func report(at location: [JSONValue], _ type: String, _ message: String, _ input: JSONValue?) {
        guard problems.count < Self.maximumProblems else { return }
        problems.append(.init(type: type, location: ["body"] + location, message: message, input: input))
    }

    mutating func string(_ name: String) -> String? {
        guard let value = present(name) else { return nil }
        guard case .string(let text) = value else {
            report(name, "string_type", "Input should be a valid string", value)
            return nil
        }
        return text
    }

    mutating func requiredString(_ name: String) -> String? {
        guard body[name] != nil else {
            report(name, "missing", "Field required")
            return nil
        }
        guard body[name] != .null else {
            report(name, "string_type", "Input should be a valid string", .null)
            return nil
        }
        return string(name)
    }

    mutating func integer(_ name: String, in range: ClosedRange<Int>) -> Int? {
        guard let value = present(name), let number = parsedInteger(name, value) else { return nil }
        guard let problem = ValidationFailure.Problem.outside(range, number) else { return number }
        report(name, problem.type, problem.message, value)
        return nil
    }

    mutating func integer(_ name: String, oneOf allowed: [Int]) -> Int? {
        guard let value = present(name), let number = parsedInteger(name, value) else { return nil }
        guard allowed.contains(number) else {
            let list = allowed.dropLast().map(String.init).joined(separator: ", ")
            let last = allowed.last.map { " or \($0)" } ?? ""
            report(name, "literal_error", "Input should be \(list)\(last)", value)
            return nil
        }
        return number
    }

    private mutating func parsedInteger(_ name: String, _ value: JSONValue) -> Int? {
        switch value {
        case .integer(let number):
            return number
        case .number(let number):
            if let whole = Int(exactly: number) { return whole }
            report(
                name,
                "int_from_float",
                "Input should be a valid integer, got a number with a fractional part",
                value
            )
        case .string(let text):
            if let number = Int(text) { return number }
            report(
                name,
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
                value
            )
        case .null, .bool, .array, .object:
            report(name, "int_type", "Input should be a valid integer", value)
        }
        return nil
    }

    mutating func stringArray(_ name: String) -> [String]? {
        guard let value = present(name) else { return nil }
        guard case .array(let values) = value else {
            report(name, "list_type", "Input should be a valid list", value)
            return nil
        }
        var strings: [String] = []
        for (index, value) in values.enumerated() {
            if case .string(let text) = value {
                strings.append(text)
            } else {
                report(at: [.string(name), .integer(index)], "string_type", "Input should be a valid string", value)
            }
        }
        return strings
    }

    mutating func object(_ name: String) -> [JSONValue.Field]? {
        guard let value = present(name) else { return nil }
        guard case .object(let fields) = value else {
            report(name, "dict_type", "Input should be a valid dictionary", value)
            return nil
        }
        return fields
    }

    mutating func stringDictionary(_ name: String) -> [String: String]? {
        guard let fields = object(name) else { return nil }
        var strings: [String: String] = [:]
        for field in fields {
            if case .string(let text) = field.value {
                strings[field.name] = text
            } else {
                let location: [JSONValue] = [.string(name), .string(field.name)]
                report(at: location, "string_type", "Input should be a valid string", field.value)
            }
        }
        return strings
    }
}
