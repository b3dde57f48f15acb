// SPDX-License-Identifier: Apache-2.0

import Hummingbird

/// Reads the parameters of a query, and collects what is wrong with them.
struct QueryReader {
    private let request: Request
    private var problems: [ValidationFailure.Problem] = []

    init(_ request: Request) {
        self.request = request
    }

    /// Ends the reading.
    ///
    /// - Throws: `ValidationFailure` with all problems, if there were any.
    func finish() throws {
        if !problems.isEmpty { throw ValidationFailure(problems: problems) }
    }

    func string(_ name: String) -> String? {
        request.uri.queryParameters[name[...]].map(String.init)
    }

    mutating func integer(_ name: String, in range: ClosedRange<Int>) -> Int? {
        guard let text = string(name) else { return nil }
        guard let number = Int(text) else {
            report(name, "int_parsing", "Input should be a valid integer, unable to parse string as an integer", text)
            return nil
        }
        if number < range.lowerBound {
            report(
                name,
                "greater_than_equal",
                "Input should be greater than or equal to \(range.lowerBound)",
                text
            )
        } else if number > range.upperBound {
            report(name, "less_than_equal", "Input should be less than or equal to \(range.upperBound)", text)
        } else {
            return number
        }
        return nil
    }

    /// A parameter that must be something of a kind.
    mutating func parsed<Value>(_ name: String, _ kind: String, _ parse: (String) -> Value?) -> Value? {
        guard let text = string(name) else { return nil }
        guard let value = parse(text) else {
            report(name, "value_error", "Input should be \(kind)", text)
            return nil
        }
        return value
    }

    private mutating func report(_ name: String, _ type: String, _ message: String, _ input: String) {
        problems.append(
            .init(type: type, location: ["query", .string(name)], message: message, input: .string(input))
        )
    }
}
