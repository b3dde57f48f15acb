// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

/// Reads paths, modes and flags of requests that concern files.
enum FileInput {
    private static let slash = UInt8(ascii: "/")

    /// The session and the path of `/v1/sessions/{id}/files/{path}`, from the URL as it was sent.
    ///
    /// Behind `files` stands the guest's path, percent-encoded. Nothing but doubled slashes is taken out of it: `..` is followed by
    /// the guest, within which it stays.
    static func location(
        of request: Request,
        _ context: AppContext,
        user: UserID
    ) throws -> (file: FileLocation, isDirectory: Bool) {
        let session = try SessionID(ofPath: context)
        var rest = request.uri.path.utf8[...]
        for _ in ["v1", "sessions", "id", "files"] {
            rest = rest.drop { $0 == slash }.drop { $0 != slash }
        }
        guard let bytes = PercentCoding.decode(rest) else {
            throw APIError(.badRequest, "The path is not percent-encoded well: '%' needs two hexadecimal digits")
        }
        let isDirectory = bytes.last == nil || bytes.last == slash
        return (note(FileLocation(session: session, owner: user, path: try absolute(bytes))), isDirectory)
    }

    /// Tells the audit log which file a request is about.
    static func note(_ file: FileLocation) -> FileLocation {
        RequestAuditContext.record {
            $0.session = file.session
            $0.resource = file.name
        }
        return file
    }

    /// An absolute path without doubled slashes and a last one; a relative one begins at `/app`.
    static func absolute(_ path: [UInt8], relativeTo base: String = "") throws -> [UInt8] {
        let full = path.first == slash ? path : Array("\(base)/".utf8) + path
        guard !full.contains(0) else { throw APIError(.badRequest, "A path cannot contain NUL") }
        let clean = full.split(separator: slash).flatMap { [slash] + $0 }
        guard clean.count <= FileLocation.maximumPath else {
            throw APIError(.badRequest, "A path has at most \(FileLocation.maximumPath) bytes")
        }
        return clean.isEmpty ? [slash] : clean
    }

    /// `mode`, in octal digits.
    static func mode(_ query: FormFields) throws -> Int? {
        guard let text = query.text("mode"), !text.isEmpty else { return nil }
        guard text.utf8.count <= 5, let mode = Int(text, radix: 8), (0...0o7777).contains(mode) else {
            throw failure("mode", "Input should be octal digits, 0 to 7777", text)
        }
        return mode
    }

    /// A flag, in one of pydantic's words.
    static func flag(_ name: String, _ query: FormFields) throws -> Bool {
        try flag(name, query.text(name), at: "query")
    }

    static func flag(_ name: String, _ text: String?, at place: String) throws -> Bool {
        guard let text else { return false }
        switch text.lowercased() {
        case "true", "1", "yes", "on", "t", "y": return true
        case "false", "0", "no", "off", "f", "n": return false
        // A form's empty field is one that was not filled in.
        case "" where place == "body": return false
        default:
            throw failure(
                name,
                "Input should be a valid boolean, unable to interpret input",
                text,
                type: "bool_parsing",
                at: place
            )
        }
    }

    /// A number that is not negative.
    static func number(_ name: String, _ query: FormFields, in range: ClosedRange<Int> = 0...Int.max) throws -> Int? {
        guard let text = query.text(name) else { return nil }
        guard let number = Int(text), range.contains(number) else {
            throw failure(name, "Input should be a whole number, \(range.lowerBound) to \(range.upperBound)", text)
        }
        return number
    }

    static func failure(
        _ name: String,
        _ message: String,
        _ input: String,
        type: String = "value_error",
        at place: String = "query"
    ) -> ValidationFailure {
        ValidationFailure(problems: [
            .init(type: type, location: [.string(place), .string(name)], message: message, input: .string(input))
        ])
    }
}

extension FormFields {
    init(queryOf request: Request) {
        self.init((request.uri.query ?? "").utf8)
    }
}
