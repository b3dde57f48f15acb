// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import SwiftletJSON

/// Reads the fields of a form (`application/x-www-form-urlencoded`), and collects what is missing, as ``BodyReader`` does.
struct FormReader {
    private let fields: [String: String]
    private var problems: [ValidationFailure.Problem] = []

    /// Parses a body. Of a field that is there twice, the last counts.
    ///
    /// - Throws: `ValidationFailure` when it is no form in UTF-8.
    init(_ bytes: ByteBuffer) throws {
        guard let text = String(validating: bytes.readableBytesView, as: UTF8.self) else { throw Self.malformed }
        var fields: [String: String] = [:]
        for pair in text.split(separator: "&") {
            let halves = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = Self.decoded(halves[0]), let value = Self.decoded(halves.count == 2 ? halves[1] : "")
            else {
                throw Self.malformed
            }
            fields[name] = value
        }
        // A database would take the text before it for the whole.
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) where value.utf8.contains(0) {
            let message = "Input should not contain NUL"
            problems.append(.init(type: "value_error", location: ["body", .string(name)], message: message))
        }
        self.fields = fields
    }

    private static func decoded(_ text: Substring) -> String? {
        text.replacing("+", with: " ").removingPercentEncoding
    }

    private static var malformed: ValidationFailure {
        let message = "The body must be a form: name=value&name=value, percent-encoded"
        return ValidationFailure(problems: [.init(type: "form_invalid", location: ["body"], message: message)])
    }

    /// Ends the reading.
    ///
    /// - Throws: `ValidationFailure` with all problems, if there were any.
    func finish() throws {
        if !problems.isEmpty { throw ValidationFailure(problems: problems) }
    }

    func string(_ name: String) -> String? { fields[name] }

    /// A field that must be there; "" when it is not.
    mutating func requiredString(_ name: String) -> String {
        guard let value = fields[name] else {
            problems.append(.init(type: "missing", location: ["body", .string(name)], message: "Field required"))
            return ""
        }
        return value
    }
}
