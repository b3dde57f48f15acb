// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import NIOCore
import SwiftletCore
import SwiftletSessions

/// `/v1/sessions/{id}/files/{path}`: reading and listing. Writing is in `FileWriteRoutes`.
struct FileRoutes: Sendable {

    let files: any FileAPI
    let authenticator: Authenticator

    var routes: [Route] {
        let writing = FileWriteRoutes(files: files, authenticator: authenticator)
        // The directory `/` has no path behind `files`.
        return ["/v1/sessions/{id}/files", "/v1/sessions/{id}/files/**"].flatMap { path in
            let operations = FileOperations(isRoot: !path.hasSuffix("**"))
            return [
                Route(.get, path, operations.read, get, audit: .fileDownloaded),
                Route(.head, path, operations.head, head),
                Route(.put, path, operations.write, writing.put, audit: .fileUploaded),
                Route(.delete, path, operations.remove, writing.delete, audit: .fileRemoved),
            ]
        }
    }

    private func get(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let (file, isDirectory) = try FileInput.location(of: request, context, user: user)
        var query = FieldReader(queryOf: request)
        let limit = query.integer("limit", in: Limits.directoryPageItems) ?? Defaults.directoryPageItems
        let isRecursive = query.flag("recursive")
        let after = Self.after(&query)
        // A wrong parameter is refused whatever is at the path, and whether it would matter there or not.
        try query.finish()
        if isRecursive { return archive(try await files.pack(file)) }
        if isDirectory { return try await list(file, after: after, limit: limit) }
        do {
            return content(try await files.read(file), request)
        } catch let error as FileError where error.code == .isADirectory {
            return try await list(file, after: after, limit: limit)
        }
    }

    /// The headers of `GET`, and the size of a partial upload to the path.
    private func head(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let (file, _) = try FileInput.location(of: request, context, user: user)
        let offset = await partialSize(file)
        var response: Response
        do {
            let info = try await files.status(of: file)
            var headers = FileOutput.headers(info)
            if info.kind == .file { headers[.contentLength] = String(info.size) }
            response = Response(status: .ok, headers: headers)
        } catch let error as FileError where offset != nil {
            response = APIError(error).response.createHeadResponse()
        }
        if let offset, let name = FileOutput.offsetHeader { response.headers[name] = String(offset) }
        return response
    }

    private func partialSize(_ file: FileLocation) async -> Int? {
        guard let path = PartialFile.path(of: file.path) else { return nil }
        var partial = file
        partial.path = path
        guard let info = try? await files.status(of: partial), info.kind == .file else { return nil }
        return info.size
    }

    /// The name behind which a listing begins.
    private static func after(_ query: inout FieldReader) -> [UInt8] {
        let after = query.bytes("after") ?? []
        if after.count > Limits.nameBytes.upperBound {
            let start = String(decoding: after.prefix(64), as: UTF8.self)
            let message = "Input should have at most \(Limits.nameBytes.upperBound) bytes"
            query.report("after", "value_error", message, input: start)
        }
        return after
    }

    private func list(_ directory: FileLocation, after: [UInt8], limit: Int) async throws -> Response {
        // A listing is not audited as a download.
        RequestAuditContext.record { $0.type = nil }
        let listing = try await files.list(directory, after: after, limit: limit)
        return Response(json: FileOutput.json(listing, of: directory))
    }

    private func archive(_ download: FileDownload) -> Response {
        Response(
            status: .ok,
            headers: [.contentType: "application/x-tar", .xContentTypeOptions: "nosniff"],
            body: .streamed { try await download.send(to: $0) }
        )
    }

    private func content(_ download: FileDownload, _ request: Request) -> Response {
        let info = download.info
        var headers = FileOutput.headers(info)
        let tag = FileOutput.tag(info)
        if Self.matches(request.headers[.ifNoneMatch], tag) { return Response(status: .notModified, headers: headers) }
        let condition = request.headers[.ifRange]
        let isSame = condition == nil || condition == tag || condition == headers[.lastModified]
        switch ByteRange(isSame ? request.headers[.range] : nil, size: info.size) {
        case .whole:
            return Response(status: .ok, headers: headers, body: Self.body(download, 0..<info.size))
        case .part(let range):
            headers[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(info.size)"
            return Response(status: .partialContent, headers: headers, body: Self.body(download, range))
        case .unsatisfiable:
            let message = "The file has \(info.size) bytes"
            return APIError(.rangeNotSatisfiable, message, headers: [.contentRange: "bytes */\(info.size)"]).response
        }
    }

    private static func body(_ download: FileDownload, _ range: Range<Int>) -> ResponseBody {
        .streamed(length: range.count) { try await download.send(range, to: $0) }
    }

    private static func matches(_ header: String?, _ tag: String) -> Bool {
        guard let header else { return false }
        return header.split(separator: ",").contains { candidate in
            let text = candidate.drop { $0 == " " }.prefix { $0 != " " }
            return text == "*" || text == tag || text == "W/\(tag)"
        }
    }
}

/// Where a resumable upload grows, as the guest's agent does it: `.NAME.partial` in the same directory.
enum PartialFile {
    /// nil where there is no room for it: no upload to such a path can be resumed.
    static func path(of path: [UInt8]) -> [UInt8]? {
        let start = (path.lastIndex(of: UInt8(ascii: "/")) ?? -1) + 1
        let partial = path[..<start] + Array(".".utf8) + path[start...] + Array(".partial".utf8)
        return partial.count <= Limits.pathBytes.upperBound ? Array(partial) : nil
    }
}
