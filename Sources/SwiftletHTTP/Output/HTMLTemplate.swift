// SPDX-License-Identifier: Apache-2.0

/// An HTML file with places for values, `{{name}}`.
struct HTMLTemplate: Sendable {
    /// The value of a place.
    enum Value {
        /// Text, whose special characters are escaped.
        case text(String)
        /// HTML, CSS or JavaScript of the server's own, as it is.
        case markup(String)

        fileprivate var html: String {
            switch self {
            case .text(let text): HTMLTemplate.escaped(text)
            case .markup(let markup): markup
            }
        }
    }

    private enum Part {
        case markup(String)
        case place(String)
    }

    private let parts: [Part]

    /// - Parameter resource: the bytes of a file, in UTF-8.
    init(_ resource: [UInt8]) {
        var parts: [Part] = []
        var rest = Substring(String(decoding: resource, as: UTF8.self))
        while let start = rest.firstRange(of: "{{"), let end = rest[start.upperBound...].firstRange(of: "}}") {
            parts.append(.markup(String(rest[..<start.lowerBound])))
            parts.append(.place(String(rest[start.upperBound..<end.lowerBound])))
            rest = rest[end.upperBound...]
        }
        self.parts = parts + [.markup(String(rest))]
    }

    /// The file with a value in each place. Every place must have one.
    func filled(_ values: [String: Value]) -> String {
        parts.reduce(into: "") { html, part in
            switch part {
            case .markup(let markup):
                html += markup
            case .place(let name):
                guard let value = values[name] else {
                    preconditionFailure("The place \(name) of an HTML template has no value")
                }
                html += value.html
            }
        }
    }

    /// A part of a page: a file without the newline at its end.
    static func part(_ resource: [UInt8]) -> [UInt8] {
        resource.last == UInt8(ascii: "\n") ? resource.dropLast() : resource
    }

    private static func escaped(_ text: String) -> String {
        text.reduce(into: "") { escaped, character in
            switch character {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "\"": escaped += "&quot;"
            case "'": escaped += "&#39;"
            default: escaped.append(character)
            }
        }
    }
}
