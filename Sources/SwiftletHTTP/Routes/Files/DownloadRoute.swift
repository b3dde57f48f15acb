// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
package import NIOCore
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

/// `POST /download`: a file in Base64, within JSON, as the client reads it.
struct DownloadRoute: Sendable {
    /// The largest file that fits into a JSON of a length that can be told. Sparse files can be larger than any disk.
    private static let maximumSize = 1 << 40

    let files: any FileAPI
    let authenticator: Authenticator
    let maximumBody: Int

    var routes: [Route] { [Route(.post, "/download", FileOperations.download, download, audit: .fileDownloaded)] }

    private func download(_ request: Request, _ context: AppContext) async throws -> Response {
        let body = try await AuthenticatedBody(of: request, upTo: maximumBody, authenticator)
        let (filename, file) = try await requestedFile(body, request.headers[.contentType] ?? "")
        let download = try await files.read(file)
        guard download.info.size <= Self.maximumSize else {
            throw APIError(.contentTooLarge, "\(file.name) is too large for JSON: get it from /v1/sessions/{id}/files")
        }
        return answer(download, name: filename)
    }

    /// The name as the request has it, and the file.
    private func requestedFile(
        _ body: AuthenticatedBody,
        _ contentType: String
    ) async throws -> (name: String, file: FileLocation) {
        let (user, filename, session): (UserID, [UInt8], String)
        if contentType.lowercased().hasPrefix("application/json") {
            var reader = try BodyReader(body.bytes)
            user = try await body.user(key: reader.string("api_key"))
            filename = Array(Self.requiredText("filename", &reader).utf8)
            session = Self.requiredText("session_id", &reader)
            try reader.finish()
        } else {
            var form = FieldReader(form: body.bytes)
            user = try await body.user(key: form.string("api_key"))
            filename = form.requiredBytes("filename", allowsEmpty: false)
            session = form.requiredString("session_id", allowsEmpty: false)
            try form.finish()
        }
        let location = FileLocation(
            session: try SessionID(named: session),
            owner: user,
            path: try FileInput.absolute(filename, relativeTo: "/app")
        )
        return (String(decoding: filename, as: UTF8.self), FileInput.audited(location))
    }

    /// A text of a JSON body that must not be empty, as in a form.
    private static func requiredText(_ name: String, _ reader: inout BodyReader) -> String {
        guard let text = reader.requiredString(name) else { return "" }
        if text.isEmpty { reader.report(name, "missing", "Field required") }
        return text
    }

    private func answer(_ download: FileDownload, name: String) -> Response {
        let size = download.info.size
        let fields: JSONValue = [
            "status": "success", "filename": .string(name), "size": .integer(size),
            "mode": .string(FileOutput.mode(download.info)),
        ]
        var opening = ByteBuffer()
        fields.write(to: &opening)
        opening.moveWriterIndex(to: opening.writerIndex - 1)
        opening.writeStaticString(",\"content\":\"")
        // The client takes an empty content for none, and a line's end for an empty one.
        let closing = ByteBuffer(string: size == 0 ? "\\n\"}" : "\"}")
        let length = opening.readableBytes + (size + 2) / 3 * 4 + closing.readableBytes
        return Response(
            status: .ok,
            headers: [.contentType: "application/json"],
            body: .streamed(length: length) { [opening] write in
                try await write(opening)
                var encoder = Base64Stream()
                try await download.send { try await write(encoder.encode($0.readableBytesView)) }
                try await write(encoder.finish())
                try await write(closing)
            }
        )
    }
}

/// Base64 of a content that comes in pieces.
package struct Base64Stream: Sendable {
    /// One or two bytes that wait for the rest of their three.
    private var pending: [UInt8] = []

    package init() {}

    package mutating func encode(_ bytes: some Collection<UInt8>) -> ByteBuffer {
        let all = pending + bytes
        let whole = all.count / 3 * 3
        pending = Array(all[whole...])
        return ByteBuffer(string: Data(all[..<whole]).base64EncodedString())
    }

    package mutating func finish() -> ByteBuffer {
        defer { pending = [] }
        return ByteBuffer(string: Data(pending).base64EncodedString())
    }
}
