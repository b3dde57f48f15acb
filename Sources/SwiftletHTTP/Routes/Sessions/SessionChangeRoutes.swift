// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import NIOCore
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

/// Lists the sessions with a VM, and changes and deletes sessions.
struct SessionChangeRoutes: Sendable {
    /// Bytes of a filter, which is compared with each sandbox's metadata.
    private static let maximumFilter = 4 * 1024

    let sessions: any SessionAPI
    let authenticator: Authenticator
    let maximumBody: Int

    var routes: [Route] {
        [
            Route(.get, "/v1/sessions/sandboxes", .listSandboxes, sandboxes),
            Route(.patch, "/v1/sessions/session/{id}", .updateSession, update, audit: .sessionUpdated),
            Route(.delete, "/v1/sessions/session/{id}", .deleteSession, delete, audit: .sessionDeleted),
        ]
    }

    /// `GET /v1/sessions/sandboxes?metadata=&limit=`: the caller's living VMs, as a bare array.
    private func sandboxes(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        var query = FieldReader(queryOf: request)
        let limit = query.integer("limit", in: Limits.pageItems) ?? Defaults.pageItems
        let filter = Self.filter(&query)
        try query.finish()
        let found = try await sessions.sandboxes(owner: user).lazy
            .map { (sandbox: $0, metadata: Self.metadata(of: $0.record)) }
            .filter { $0.metadata.has(filter) }
            .prefix(limit)
        return Response(json: .array(found.map { Self.item($0.sandbox, metadata: $0.metadata) }))
    }

    private static func filter(_ query: inout FieldReader) -> [JSONValue.Field] {
        guard let text = query.string("metadata"), !text.isEmpty else { return [] }
        guard text.utf8.count <= maximumFilter else {
            let message = "Input should have at most \(maximumFilter) bytes"
            query.report("metadata", "string_too_long", message, input: text)
            return []
        }
        guard let value = try? JSONValue(parsing: ByteBuffer(string: text)), case .object(let fields) = value else {
            let message = "Input should be a JSON object, such as {\"name\": \"value\"}"
            query.report("metadata", "json_invalid", message, input: text)
            return []
        }
        return fields
    }

    private static func metadata(of record: SessionRecord) -> JSONValue {
        (try? JSONValue(parsing: ByteBuffer(string: record.metadataJSON))) ?? .object([])
    }

    private static func item(_ sandbox: Sandbox, metadata: JSONValue) -> JSONValue {
        [
            "sandbox_id": .string(sandbox.vm.id),
            "session_id": .string(sandbox.record.id.rawValue),
            "template_id": .init(sandbox.template),
            "name": "default",
            "metadata": metadata,
            "started_at": .init(sandbox.vm.startedAt),
            "end_at": .init(sandbox.vm.expiresAt),
            "status": .string(sandbox.state.rawValue),
        ]
    }

    /// `PATCH /v1/sessions/session/{id}`
    private func update(_ request: Request, _ context: AppContext) async throws -> Response {
        let body = try await AuthenticatedBody(of: request, upTo: maximumBody, authenticator)
        var reader = try BodyReader(body.bytes)
        let user = try await body.user(key: reader.string("api_key"))
        let change = SessionChange(
            vmLifetimeSeconds: reader.integer("vm_lifetime_seconds", in: Limits.vmLifetimeSeconds),
            metadataJSON: SessionRoutes.metadata(&reader)
        )
        try reader.finish()
        let status = try await sessions.update(try SessionID(ofPath: context), owner: user, change)
        return Response(json: SessionRoutes.json(of: status))
    }

    /// `DELETE /v1/sessions/session/{id}`
    private func delete(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let id = try SessionID(ofPath: context)
        try await sessions.delete(id, owner: user)
        return Response(json: [
            "status": "success", "message": .string("Session \(id) deleted"), "session_id": .string(id.rawValue),
        ])
    }
}

extension JSONValue {
    /// Whether it is an object with all of these fields and their values.
    func has(_ wanted: [Field]) -> Bool {
        guard case .object(let fields) = self else { return false }
        // As in a subscript, the last of two fields of one name counts.
        let values = Dictionary(fields.map { ($0.name, $0.value) }) { $1 }
        return wanted.allSatisfy { values[$0.name]?.means($0.value) == true }
    }

    /// Whether two values are the same to a reader: an object's fields have no order.
    func means(_ other: JSONValue) -> Bool {
        switch (self, other) {
        case (.object(let mine), .object(let theirs)):
            mine.count == theirs.count && has(theirs)
        case (.array(let mine), .array(let theirs)):
            mine.count == theirs.count && zip(mine, theirs).allSatisfy { $0.means($1) }
        default:
            self == other
        }
    }
}
