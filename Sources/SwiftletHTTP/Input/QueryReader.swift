// SPDX-License-Identifier: Apache-2.0

import Foundation
import Hummingbird
import SwiftletJSON

/// Reads the parameters of a request's query, and collects what is wrong with them, as ``BodyReader`` does it for bodies.
struct QueryReader {
    private let values: [String: String]
    private var problems: [ValidationFailure.Problem] = []

    init(_ request: Request) {
        var values: [String: String] = [:]
        for pair in (request.uri.query ?? "").split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            // The last of a name counts.
            values[Self.decoded(parts[0])] = parts.count > 1 ? Self.decoded(parts[1]) : ""
        }
        self.values = values
    }

    /// Ends the reading.
    ///
    /// - Throws: `ValidationFailure` with all problems, if there were any.
    func finish() throws {
        if !problems.isEmpty { throw ValidationFailure(problems: problems) }
    }

    mutating func report(_ name: String, _ type: String, _ message: String) {
        problems.append(
            .init(type: type, location: ["query", .string(name)], message: message, input: .init(values[name]))
        )
    }

    func string(_ name: String) -> String? {
        values[name]
    }

    mutating func integer(_ name: String, in range: ClosedRange<Int>) -> Int? {
        guard let text = values[name] else { return nil }
        guard let number = Int(text.trimmingCharacters(in: .whitespaces)) else {
            report(
                name,
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer"
            )
            return nil
        }
        guard let problem = ValidationFailure.Problem.outside(range, number) else { return number }
        report(name, problem.type, problem.message)
        return nil
    }

    /// A parameter that must be something of a kind.
    mutating func parsed<Value>(_ name: String, _ kind: String, _ parse: (String) -> Value?) -> Value? {
        guard let text = values[name] else { return nil }
        guard let value = parse(text) else {
            report(name, "value_error", "Input should be \(kind)")
            return nil
        }
        return value
    }

    /// Text of a query, in which a space is a plus sign; as it stands when it cannot be decoded.
    private static func decoded(_ text: Substring) -> String {
        let text = text.replacingOccurrences(of: "+", with: " ")
        return text.removingPercentEncoding ?? text
    }
}
