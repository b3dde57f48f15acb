// SPDX-License-Identifier: Apache-2.0

import Foundation
import Hummingbird
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

/// Creates sessions, reads them and their status, and ends their VMs.
struct SessionRoutes: Sendable {
    /// Bytes that all variables of a session may have together.
    private static let maximumEnvironment = 32 * 1024
    private static let maximumMetadata = 64 * 1024

    let sessions: any SessionAPI
    let authenticator: Authenticator
    let maximumBody: Int

    var routes: [Route] {
        [
            Route(.post, "/v1/sessions/session", .createSession, create, audit: .sessionCreated),
            Route(.get, "/v1/sessions/session/{id}", .getSession, get),
            Route(.get, "/v1/sessions/status/{id}", .sessionStatus, status),
            Route(.post, "/kill", .killVM, kill, audit: .sessionKilled),
        ]
    }

    /// `POST /v1/sessions/session`. Clients send the key in the body, and in no header.
    private func create(_ request: Request, _ context: AppContext) async throws -> Response {
        let body = try await AuthenticatedBody(of: request, upTo: maximumBody, authenticator)
        var reader = try BodyReader(body.bytes)
        let user = try await body.user(key: reader.string("api_key"))
        let options = SessionOptions(
            vmLifetimeSeconds: reader.integer("vm_lifetime_seconds", in: Limits.vmLifetimeSeconds),
            memoryMB: reader.integer("memory_mb", in: Limits.memoryMB),
            vcpuCount: reader.integer("vcpu_count", oneOf: Limits.vcpuCounts),
            environment: environment(&reader),
            metadataJSON: Self.metadata(&reader)
        )
        try reader.finish()
        let record = try await sessions.createSession(owner: user, options: options)
        RequestAuditContext.record {
            $0.session = record.id
            $0.vmID = record.vm?.id
        }
        var fields = Self.fields(of: record)
        fields.append(.init(name: "status", value: "active"))
        return Response(json: .object(fields))
    }

    /// `GET /v1/sessions/session/{id}`
    private func get(_ request: Request, _ context: AppContext) async throws -> Response {
        Response(json: Self.json(of: try await requestedStatus(request, context)))
    }

    /// `GET /v1/sessions/status/{id}`: each key is there in each of its three shapes.
    private func status(_ request: Request, _ context: AppContext) async throws -> Response {
        let status = try await requestedStatus(request, context)
        let isAlive = status.vm == .active || status.vm == .starting
        return Response(json: [
            "session_id": .string(status.record.id.rawValue),
            "exists": .bool(true),
            "vm_assigned": .bool(status.vm != nil),
            "vm_status": .init(status.vm?.rawValue),
            "vm_id": .init(status.record.vm?.id),
            "vm_alive": .bool(isAlive),
            "uptime_seconds": .init(status.uptime),
            "expires_in_seconds": .init(status.expiresIn),
            "created_at": .init(status.record.createdAt),
        ])
    }

    /// `POST /kill`
    private func kill(_ request: Request, _ context: AppContext) async throws -> Response {
        let body = try await AuthenticatedBody(of: request, upTo: maximumBody, authenticator)
        var reader = try BodyReader(body.bytes)
        let user = try await body.user(key: reader.string("api_key"))
        let text = reader.requiredString("session_id")
        try reader.finish()
        guard let text, let id = SessionID(rawValue: text) else {
            throw APIError(.badRequest, "Invalid session_id: it must be a UUID")
        }
        RequestAuditContext.record { $0.session = id }
        let vm = try await sessions.kill(id, owner: user)
        RequestAuditContext.record { $0.vmID = vm }
        return Response(json: [
            "status": "success", "message": .string("VM \(vm) killed"), "vm_id": .string(vm),
            "session_id": .string(id.rawValue),
        ])
    }

    private func requestedStatus(_ request: Request, _ context: AppContext) async throws -> SessionStatus {
        let user = try await authenticator.user(request.headers)
        return try await sessions.status(of: try SessionID(ofPath: context), owner: user)
    }

    /// A session's record and status.
    static func json(of status: SessionStatus) -> JSONValue {
        var fields = fields(of: status.record)
        fields.append(.init(name: "status", value: .string(status.vm?.rawValue ?? "active")))
        fields.append(.init(name: "vm_end_reason", value: .init(status.record.vm?.endReason)))
        return .object(fields)
    }

    private static func fields(of record: SessionRecord) -> [JSONValue.Field] {
        let metadata = try? JSONValue(parsing: .init(string: record.metadataJSON))
        return [
            .init(name: "session_id", value: .string(record.id.rawValue)),
            .init(name: "created_at", value: .init(record.createdAt)),
            .init(name: "vm_lifetime_seconds", value: .integer(record.vmLifetimeSeconds)),
            .init(name: "memory_mb", value: .integer(record.memoryMB)),
            .init(name: "vcpu_count", value: .integer(record.vcpuCount)),
            .init(name: "metadata", value: metadata ?? .null),
            // Names only: a value may be something that its owner keeps to the VM.
            .init(name: "env", value: .array(record.environment.keys.sorted().map { .string($0) })),
            .init(name: "vm_id", value: .init(record.vm?.id)),
            .init(name: "vm_started_at", value: .init(record.vm?.startedAt)),
            .init(name: "expires_at", value: .init(record.vm?.expiresAt)),
        ]
    }

    private func environment(_ reader: inout BodyReader) -> [String: String]? {
        guard let variables = reader.stringDictionary("env") else { return nil }
        for (name, value) in variables {
            if name.isEmpty || name.contains("=") || name.utf8.contains(0) || value.utf8.contains(0) {
                reader.report(
                    "env",
                    "value_error",
                    "A variable's name must be non-empty without '=' or NUL, its value without NUL"
                )
                return nil
            }
        }
        let size = variables.reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count + 8 }
        guard size <= Self.maximumEnvironment else {
            reader.report(
                "env",
                "too_long",
                "The variables must have at most \(Self.maximumEnvironment) bytes together"
            )
            return nil
        }
        return variables
    }

    static func metadata(_ reader: inout BodyReader) -> String? {
        guard let fields = reader.object("metadata") else { return nil }
        let text = JSONValue.object(fields).text
        guard text.utf8.count <= maximumMetadata else {
            reader.report("metadata", "too_long", "The metadata must have at most \(maximumMetadata) bytes")
            return nil
        }
        return text
    }
}

extension SessionID {
    /// The session that a client means.
    ///
    /// - Throws: `APIError`: 404 for a text that can be none.
    init(named text: String) throws {
        guard let id = SessionID(rawValue: text) else {
            throw APIError(.notFound, "Session \(text.prefix(64)) not found")
        }
        self = id
    }

    /// The session that `{id}` of a path names.
    init(ofPath context: AppContext) throws {
        try self.init(named: try context.parameters.require("id"))
    }
}
