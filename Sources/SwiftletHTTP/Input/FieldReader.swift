// SPDX-License-Identifier: Apache-2.0

import Foundation
package import NIOCore
import SwiftletJSON

/// Reads the named fields of a query, a form (`application/x-www-form-urlencoded`) or a multipart form, and collects their
/// problems, as ``BodyReader`` does for JSON.
///
/// The rules are the same for each encoding:
/// - Of the values of one name, the last counts. Fields that are not read are ignored, whatever they contain.
/// - A field without a value, `name` or `name=`, has an empty one: a valid text, and neither a number nor a flag.
/// - Text is UTF-8 without NUL, which a database may take for the text's end. Bytes may be anything.
/// - In a query and a form `+` is a space, and `%` must have two hexadecimal digits behind it.
/// - The location of a problem is the fields' place and the field's name.
package struct FieldReader: Sendable {
    /// Where the fields are in the request; the beginning of a problem's location.
    package enum Place: String, Sendable {
        case query, body
    }

    private enum Value {
        case bytes([UInt8])
        /// Its percent-encoding is malformed.
        case malformed
    }

    private let place: Place
    private var values: [String: Value] = [:]
    /// The problems of the fields that were read, in the order of reading.
    package private(set) var problems: [ValidationFailure.Problem] = []

    /// No fields yet; `set` and `append` add them.
    package init(at place: Place) {
        self.place = place
    }

    /// Decodes `name=value&name=value`.
    private init(_ text: some Collection<UInt8>, at place: Place) {
        self.place = place
        for pair in text.split(separator: UInt8(ascii: "&")) {
            let halves = pair.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            // A name that is no text is the name of no field.
            guard let bytes = PercentCoding.decode(halves[0], plusIsSpace: true),
                let name = String(validating: bytes, as: UTF8.self)
            else { continue }
            let value = halves.count > 1 ? PercentCoding.decode(halves[1], plusIsSpace: true) : []
            values[name] = value.map { .bytes($0) } ?? .malformed
        }
    }

    /// Decodes a URL's query, the part behind `?`.
    package init(query: String) {
        self.init(query.utf8, at: .query)
    }

    /// Decodes a form.
    package init(form: ByteBuffer) {
        self.init(form.readableBytesView, at: .body)
    }

    /// Sets a field to an empty value, in place of an earlier one.
    package mutating func set(_ name: String) {
        values[name] = .bytes([])
    }

    /// Appends bytes to a field's value.
    ///
    /// - Returns: the value's size.
    package mutating func append(_ bytes: [UInt8], to name: String) -> Int {
        guard case .bytes(var value)? = values.removeValue(forKey: name) else { return 0 }
        value += bytes
        values[name] = .bytes(value)
        return value.count
    }

    /// Ends the reading.
    ///
    /// - Throws: `ValidationFailure` with all problems, if there were any.
    package func finish() throws {
        if !problems.isEmpty { throw ValidationFailure(problems: problems) }
    }

    /// Records a problem of a field.
    package mutating func report(_ name: String, _ type: String, _ message: String, input: String? = nil) {
        let location: [JSONValue] = [.string(place.rawValue), .string(name)]
        let problem = ValidationFailure.Problem(
            type: type,
            location: location,
            message: message,
            input: input.map { .string($0) }
        )
        // A field may be read twice.
        if !problems.contains(problem) { problems.append(problem) }
    }

    // MARK: Values

    /// Bytes of any kind; nil when there is no such field.
    package mutating func bytes(_ name: String) -> [UInt8]? {
        switch values[name] {
        case nil: return nil
        case .bytes(let bytes): return bytes
        case .malformed:
            report(name, "value_error", "Input should be percent-encoded: '%' needs two hexadecimal digits")
            return nil
        }
    }

    /// A text; nil when there is no such field.
    package mutating func string(_ name: String) -> String? {
        guard let bytes = bytes(name) else { return nil }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            let message = "Input should be a valid string, unable to parse raw data as a unicode string"
            report(name, "string_unicode", message)
            return nil
        }
        guard !text.utf8.contains(0) else {
            report(name, "value_error", "Input should not contain NUL")
            return nil
        }
        return text
    }

    /// Bytes that must be there; none when they are not.
    ///
    /// - Parameters:
    ///   - allowsEmpty: whether an empty value counts as one.
    ///   - message: is reported when there is none.
    package mutating func requiredBytes(
        _ name: String,
        allowsEmpty: Bool = true,
        orReport message: String = "Field required"
    ) -> [UInt8] {
        requirePresence(name, allowsEmpty, message)
        return bytes(name) ?? []
    }

    /// A text that must be there; "" when it is not. Parameters: as of `requiredBytes`.
    package mutating func requiredString(
        _ name: String,
        allowsEmpty: Bool = true,
        orReport message: String = "Field required"
    ) -> String {
        requirePresence(name, allowsEmpty, message)
        return string(name) ?? ""
    }

    private mutating func requirePresence(_ name: String, _ allowsEmpty: Bool, _ message: String) {
        switch values[name] {
        case .malformed: break
        case .bytes(let bytes) where allowsEmpty || !bytes.isEmpty: break
        case .bytes, nil: report(name, "missing", message)
        }
    }

    /// A whole number, which may have white space around it; nil when there is no such field.
    package mutating func integer(_ name: String, in range: ClosedRange<Int> = 0...Int.max) -> Int? {
        guard let text = string(name) else { return nil }
        guard let number = Int(text.trimmingCharacters(in: .whitespaces)) else {
            let message = "Input should be a valid integer, unable to parse string as an integer"
            report(name, "int_parsing", message, input: text)
            return nil
        }
        guard let problem = ValidationFailure.Problem.outside(range, number) else { return number }
        report(name, problem.type, problem.message, input: text)
        return nil
    }

    /// A flag, in one of pydantic's spellings; false when there is no such field.
    package mutating func flag(_ name: String) -> Bool {
        guard let text = string(name) else { return false }
        switch text.lowercased() {
        case "true", "1", "yes", "on", "t", "y": return true
        case "false", "0", "no", "off", "f", "n": return false
        default:
            let message = "Input should be a valid boolean, unable to interpret input"
            report(name, "bool_parsing", message, input: text)
            return false
        }
    }

    /// A value of another type; nil when there is no such field.
    ///
    /// - Parameters:
    ///   - kind: describes valid values in the message when `parse` returns nil.
    ///   - parse: makes the value of a text.
    package mutating func parsed<Parsed>(
        _ name: String,
        _ kind: String,
        _ parse: (String) -> Parsed?
    ) -> Parsed? {
        guard let text = string(name) else { return nil }
        guard let value = parse(text) else {
            report(name, "value_error", "Input should be \(kind)", input: text)
            return nil
        }
        return value
    }
}
