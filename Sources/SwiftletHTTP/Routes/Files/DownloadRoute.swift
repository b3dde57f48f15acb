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
        let fields = try fields(body.bytes, request.headers[.contentType] ?? "")
        let user = try await body.user(key: fields.key)
        var problems: [ValidationFailure.Problem] = []
        for (name, value) in [("filename", fields.filename), ("session_id", fields.session)]
        where (value ?? []).isEmpty {
            problems.append(.init(type: "missing", location: ["body", .string(name)], message: "Field required"))
        }
        guard problems.isEmpty, let filename = fields.filename, let session = fields.session else {
            throw ValidationFailure(problems: problems)
        }
        let location = FileLocation(
            session: try SessionID(named: String(decoding: session, as: UTF8.self)),
            owner: user,
            path: try FileInput.absolute(filename, relativeTo: "/app")
        )
        let file = FileInput.note(location)
        let download = try await files.read(file)
        guard download.info.size <= Self.maximumSize else {
            throw APIError(.contentTooLarge, "\(file.name) is too large for JSON: get it from /v1/sessions/{id}/files")
        }
        return answer(download, name: String(decoding: filename, as: UTF8.self))
    }

    private typealias Fields = (filename: [UInt8]?, session: [UInt8]?, key: String?)

    private func fields(_ body: ByteBuffer, _ contentType: String) throws -> Fields {
        guard contentType.lowercased().hasPrefix("application/json") else {
            let form = FormFields(body.readableBytesView)
            return (form.bytes("filename"), form.bytes("session_id"), form.text("api_key"))
        }
        var reader = try BodyReader(body)
        let filename = reader.requiredString("filename")
        let session = reader.requiredString("session_id")
        let key = reader.string("api_key")
        try reader.finish()
        return (filename.map { Array($0.utf8) }, session.map { Array($0.utf8) }, key)
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
            body: ResponseBody(contentLength: length) { [opening] writer in
                try await writer.write(opening)
                var encoder = Base64Stream()
                try await download.send { try await writer.write(encoder.encode($0.readableBytesView)) }
                try await writer.write(encoder.finish())
                try await writer.write(closing)
                try await writer.finish(nil)
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
