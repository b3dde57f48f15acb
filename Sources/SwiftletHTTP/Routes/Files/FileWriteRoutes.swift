// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import NIOCore
import SwiftletJSON
import SwiftletSessions

/// `PUT` and `DELETE` of `/v1/sessions/{id}/files/{path}`.
struct FileWriteRoutes: Sendable {
    /// The query's parameters of an upload in parts.
    private struct UploadPart {
        let offset: Int?
        let size: Int?
    }

    let files: any FileAPI
    let authenticator: Authenticator

    func put(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let (file, isDirectory) = try FileInput.location(of: request, context, user: user)
        var query = FieldReader(queryOf: request)
        let mode = FileInput.mode(&query)
        let part = UploadPart(offset: query.integer("offset"), size: query.integer("size"))
        let isRecursive = query.flag("recursive")
        let isDirectoryRequested = query.flag("directory")
        try query.finish()
        if isRecursive { return try await unpack(request, into: file) }
        if isDirectory || isDirectoryRequested {
            return answer(try await files.makeDirectory(file, mode: mode), at: file)
        }
        let options = try options(request, part, mode: mode, &query)
        let upload = try await files.write(file, options)
        let count = try await send(request.body, to: upload)
        // A connection that breaks looks like a body that ends.
        if let length = Self.length(request), count != length { throw Self.incomplete(count, of: length) }
        return answer(try await upload.finish(), at: file)
    }

    func delete(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let (file, _) = try FileInput.location(of: request, context, user: user)
        var query = FieldReader(queryOf: request)
        let isRecursive = query.flag("recursive")
        try query.finish()
        guard file.path.count > 1 else { throw APIError(.badRequest, "/ cannot be removed") }
        _ = try await files.remove(file, recursive: isRecursive)
        return Response(json: ["status": "success", "path": .string(file.name)])
    }

    /// Where the body goes in the file, by `offset` and `size`, or by `Content-Range`.
    private func options(
        _ request: Request,
        _ part: UploadPart,
        mode: Int?,
        _ query: inout FieldReader
    ) throws -> FileWriteOptions {
        let length = Self.length(request)
        if let header = request.headers[.contentRange] {
            guard let range = ContentRange(header) else {
                throw APIError(.badRequest, "Content-Range must be 'bytes FIRST-LAST/SIZE'")
            }
            if let length, length != range.range.count {
                throw APIError(.badRequest, "Content-Range names \(range.range.count) bytes, Content-Length \(length)")
            }
            return FileWriteOptions(mode: mode, size: range.size, resumeAt: range.range.lowerBound)
        }
        guard let offset = part.offset else { return FileWriteOptions(mode: mode, size: length) }
        if part.size == nil {
            query.report("size", "missing", "Field required with offset: how many bytes the whole file has")
        }
        let size = part.size ?? offset
        if size < offset {
            let message = "Input should be greater than or equal to offset"
            query.report("size", "value_error", message, input: String(size))
        }
        try query.finish()
        return FileWriteOptions(mode: mode, size: size, resumeAt: offset)
    }

    private func unpack(_ request: Request, into directory: FileLocation) async throws -> Response {
        var unpacking = Unpacking(files: files, directory: directory)
        var count = 0
        for try await buffer in request.body {
            count += buffer.readableBytes
            try await unpacking.write(buffer)
        }
        if let length = Self.length(request), count != length { throw Self.incomplete(count, of: length) }
        try await unpacking.finish()
        return Response(json: ["status": "success", "path": .string(directory.name)])
    }

    private func send(_ body: RequestBody, to upload: FileUpload) async throws -> Int {
        var count = 0
        for try await buffer in body {
            count += buffer.readableBytes
            try await upload.write(buffer)
        }
        return count
    }

    private static func length(_ request: Request) -> Int? {
        request.headers[.contentLength].flatMap { Int($0) }
    }

    private static func incomplete(_ count: Int, of length: Int) -> APIError {
        APIError(.badRequest, "The body ended after \(count) of \(length) bytes")
    }

    private func answer(_ change: FileChange, at file: FileLocation) -> Response {
        if change.isPartial {
            var response = Response(json: [
                "path": .string(file.name), "complete": .bool(false), "offset": .integer(change.size),
            ])
            response.status = .accepted
            return response
        }
        var fields = change.info.map { FileOutput.fields($0, path: file.path) } ?? []
        fields.append(.init(name: "complete", value: .bool(true)))
        var response = Response(json: .object(fields))
        if change.created { response.status = .created }
        return response
    }
}

/// Uploads an archive to be unpacked; detects from its first bytes whether it is compressed.
struct Unpacking {
    private static let gzip: [UInt8] = [0x1f, 0x8b]

    private let files: any FileAPI
    private let directory: FileLocation
    private var head = ByteBuffer()
    private var upload: FileUpload?

    init(files: any FileAPI, directory: FileLocation) {
        self.files = files
        self.directory = directory
    }

    mutating func write(_ bytes: ByteBuffer) async throws {
        if let upload { return try await upload.write(bytes) }
        head.writeImmutableBuffer(bytes)
        if head.readableBytes >= Self.gzip.count { _ = try await open() }
    }

    mutating func finish() async throws {
        let upload = if let upload { upload } else { try await open() }
        _ = try await upload.finish()
    }

    private mutating func open() async throws -> FileUpload {
        let isCompressed = head.readableBytesView.starts(with: Self.gzip)
        let upload = try await files.unpack(directory, compressed: isCompressed)
        self.upload = upload
        if head.readableBytes > 0 { try await upload.write(head) }
        return upload
    }
}
