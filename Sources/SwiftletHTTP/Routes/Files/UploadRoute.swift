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
        // Who has no key is not listened to, unless it may be a field.
        var user: UserID?
        if Authenticator.hasCredential(request.headers) { user = try await authenticator.user(request.headers) }
        var form = UploadForm(files: files)
        do {
            var parser = try MultipartParser(contentType: request.headers[.contentType])
            for try await buffer in request.body {
                parser.append(buffer.readableBytesView)
                while let event = try parser.next() {
                    if case .part(name: "file") = event, user == nil {
                        user = try await authenticator.user(request.headers, bodyKey: form["api_key"])
                    }
                    try await form.take(event, user: user)
                }
            }
            if user == nil { user = try await authenticator.user(request.headers, bodyKey: form["api_key"]) }
            guard parser.isComplete else { throw APIError(.badRequest, "The form ends before its last boundary") }
        } catch let error as MultipartParser.Malformed {
            throw APIError(.badRequest, error.description)
        }
        return Response(json: try await form.finish())
    }
}

/// The fields of an upload as they come, and its file on its way into the guest.
private struct UploadForm {
    private enum Target {
        case file(FileUpload)
        case archive(Unpacking)
    }

    private static let maximumField = 16 * 1024
    private static let maximumParts = 32

    private let files: any FileAPI
    private var fields: [String: [UInt8]] = [:]
    private var parts = 0
    private var current: String?
    private var target: Target?
    private var path = ""
    private var size = 0

    init(files: any FileAPI) {
        self.files = files
    }

    subscript(name: String) -> String? { fields[name].map { String(decoding: $0, as: UTF8.self) } }

    /// - Parameter user: nil only before the file.
    mutating func take(_ event: MultipartParser.Event, user: UserID?) async throws {
        switch event {
        case .part(let name):
            parts += 1
            guard parts <= Self.maximumParts else {
                throw APIError(.badRequest, "The form has more than \(Self.maximumParts) parts")
            }
            current = name
            if name != "file" {
                fields[name] = []
            } else if let user {
                guard target == nil else { throw APIError(.badRequest, "The form has more than one file") }
                target = try await open(user)
            }
        case .content(let bytes):
            try await take(bytes)
        case .partEnd:
            current = nil
        case .end:
            break
        }
    }

    private mutating func take(_ bytes: [UInt8]) async throws {
        guard let current else { return }
        if current == "file" {
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
            return
        }
        guard (fields[current]?.count ?? 0) + bytes.count <= Self.maximumField else {
            throw APIError(.badRequest, "A field of the form is larger than \(Self.maximumField) bytes")
        }
        fields[current]? += bytes
    }

    /// Begins with the file: what says where it goes must have come before it.
    private mutating func open(_ user: UserID) async throws -> Target {
        var problems: [ValidationFailure.Problem] = []
        for name in ["remote_path", "session_id"] where (fields[name] ?? []).isEmpty {
            let message = "Field required, before the file"
            problems.append(.init(type: "missing", location: ["body", .string(name)], message: message))
        }
        guard problems.isEmpty, let remote = fields["remote_path"], let session = self["session_id"] else {
            throw ValidationFailure(problems: problems)
        }
        path = String(decoding: remote, as: UTF8.self)
        let location = FileLocation(
            session: try SessionID(named: session),
            owner: user,
            path: try FileInput.absolute(remote, relativeTo: "/app")
        )
        let file = FileInput.note(location)
        if try FileInput.flag("recursive", self["recursive"], at: "body") {
            return .archive(Unpacking(files: files, directory: file))
        }
        guard remote.last != UInt8(ascii: "/") else {
            throw APIError(.conflict, "\(path) is a directory: remote_path names the file")
        }
        return .file(try await files.write(file, FileWriteOptions()))
    }

    /// Puts the file into its place.
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
