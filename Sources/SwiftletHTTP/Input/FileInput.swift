// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

/// Reads paths and modes of requests that concern files.
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
        return (audited(FileLocation(session: session, owner: user, path: try absolute(bytes))), isDirectory)
    }

    /// Records in the request's audit context which file the request is about, and returns it.
    static func audited(_ file: FileLocation) -> FileLocation {
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
        guard clean.count <= Limits.pathBytes.upperBound else {
            throw APIError(.badRequest, "A path has at most \(Limits.pathBytes.upperBound) bytes")
        }
        return clean.isEmpty ? [slash] : clean
    }

    /// `mode`, in octal digits; an empty one is none.
    static func mode(_ query: inout FieldReader) -> Int? {
        guard let text = query.string("mode"), !text.isEmpty else { return nil }
        guard text.utf8.count <= 5, let mode = Int(text, radix: 8), (0...0o7777).contains(mode) else {
            query.report("mode", "value_error", "Input should be octal digits, 0 to 7777", input: text)
            return nil
        }
        return mode
    }
}

extension FieldReader {
    init(queryOf request: Request) {
        self.init(query: request.uri.query ?? "")
    }
}
