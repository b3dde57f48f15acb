// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import NIOCore
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

/// `POST /upload`: a file, or an archive to unpack, as a form.
struct UploadRoute: Sendable {
    let files: any FileAPI
    let authenticator: Authenticator

    var routes: [Route] { [Route(.post, "/upload", FileOperations.upload, upload, audit: .fileUploaded)] }

    private func upload(_ request: Request, _ context: AppContext) async throws -> Response {
        // A credential in a header is checked before the body is read; else the form must have `api_key` before the file.
        var user: UserID?
        if Authenticator.hasCredential(request.headers) { user = try await authenticator.user(request.headers) }
        var upload = FormUpload(files: files)
        do {
            var form = try MultipartForm(contentType: request.headers[.contentType])
            for try await buffer in request.body {
                form.append(buffer.readableBytesView)
                while let event = try form.next() {
                    switch event {
                    case .fileStart:
                        let owner = try await self.user(user, request, form)
                        user = owner
                        try await upload.open(form.fields, owner: owner)
                    case .fileContent(let bytes):
                        try await upload.write(bytes)
                    }
                }
            }
            _ = try await self.user(user, request, form)
            guard form.isComplete else { throw APIError(.badRequest, "The form ends before its last boundary") }
        } catch let error as MultipartParser.Malformed {
            throw APIError(.badRequest, error.description)
        }
        return Response(json: try await upload.finish())
    }

    /// The user, authenticated by a header, or by the `api_key` among the fields that have arrived.
    private func user(_ known: UserID?, _ request: Request, _ form: MultipartForm) async throws -> UserID {
        if let known { return known }
        var fields = form.fields
        return try await authenticator.user(request.headers, bodyKey: fields.string("api_key"))
    }
}

/// Writes the file of a form into the guest.
private struct FormUpload {
    private enum Target {
        case file(FileUpload)
        case archive(Unpacking)
    }

    private let files: any FileAPI
    private var target: Target?
    private var path = ""
    private var size = 0

    init(files: any FileAPI) {
        self.files = files
    }

    /// Opens the target of the file.
    ///
    /// - Parameter fields: the fields before the file, which must name the target.
    mutating func open(_ fields: FieldReader, owner: UserID) async throws {
        guard target == nil else { throw APIError(.badRequest, "The form has more than one file") }
        var fields = fields
        let missing = "Field required, before the file"
        let remote = fields.requiredBytes("remote_path", allowsEmpty: false, orReport: missing)
        let session = fields.requiredString("session_id", allowsEmpty: false, orReport: missing)
        let isArchive = fields.flag("recursive")
        try fields.finish()
        path = String(decoding: remote, as: UTF8.self)
        let location = FileLocation(
            session: try SessionID(named: session),
            owner: owner,
            path: try FileInput.absolute(remote, relativeTo: "/app")
        )
        let file = FileInput.audited(location)
        if isArchive {
            target = .archive(Unpacking(files: files, directory: file))
            return
        }
        guard remote.last != UInt8(ascii: "/") else {
            throw APIError(.conflict, "\(path) is a directory: remote_path names the file")
        }
        target = .file(try await files.write(file, FileWriteOptions()))
    }

    mutating func write(_ bytes: [UInt8]) async throws {
        size += bytes.count
        switch target {
        case .file(let upload):
            try await upload.write(ByteBuffer(bytes: bytes))
        case .archive(var unpacking):
            try await unpacking.write(ByteBuffer(bytes: bytes))
            target = .archive(unpacking)
        case nil:
            break
        }
    }

    /// Moves the complete file to its path.
    mutating func finish() async throws -> JSONValue {
        var fields: [JSONValue.Field] = [
            .init(name: "status", value: "success"), .init(name: "remote_path", value: .string(path)),
            .init(name: "size", value: .integer(size)),
        ]
        switch target {
        case .file(let upload):
            let change = try await upload.finish()
            fields.append(.init(name: "created", value: .bool(change.created)))
            if let info = change.info { fields.append(.init(name: "mode", value: .string(FileOutput.mode(info)))) }
        case .archive(var unpacking):
            try await unpacking.finish()
        case nil:
            throw ValidationFailure(problems: [
                .init(type: "missing", location: ["body", "file"], message: "Field required")
            ])
        }
        return .object(fields)
    }
}
