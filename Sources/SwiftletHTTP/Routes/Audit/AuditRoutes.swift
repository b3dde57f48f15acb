// SPDX-License-Identifier: Apache-2.0

import Foundation
import Hummingbird
import SwiftletAccounts
import SwiftletCore
import SwiftletJSON
import SwiftletStore

/// A user's audit events.
struct AuditRoutes: Sendable {

    let log: AuditBuffer
    let authenticator: Authenticator

    var routes: [Route] {
        [
            Route(.get, "/v1/audit/events", .listAuditEvents, events),
            Route(.get, "/v1/audit/events/{id}", .getAuditEvent, event),
            Route(.get, "/v1/audit/catalog", .auditCatalog, catalog),
        ]
    }

    /// `GET /v1/audit/events`: the newest first.
    private func events(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        var query = FieldReader(queryOf: request)
        var filter = AuditStore.Filter(owner: user, limit: Defaults.auditPageItems)
        let groups = AuditEventType.catalog.map(\.group)
        filter.limit = query.integer("limit", in: Limits.auditPageItems) ?? filter.limit
        filter.group = query.parsed("event_group", "one of: " + groups.joined(separator: ", ")) {
            groups.contains($0) ? $0 : nil
        }
        filter.type = query.parsed("event_type", "one of those of /v1/audit/catalog") { AuditEventType(rawValue: $0) }
        let statuses = AuditStatus.allCases.map(\.rawValue).joined(separator: ", ")
        filter.status = query.parsed("status", "one of: " + statuses) { AuditStatus(rawValue: $0) }
        filter.session = query.parsed("session_id", "a session's id") { SessionID(rawValue: $0) }
        filter.vmID = query.parsed("vm_id", "a VM's id") { $0.utf8.count <= Limits.vmIDBytes ? $0 : nil }
        filter.before = query.parsed("cursor", "the next_cursor of an answer") { AuditEventID(rawValue: $0) }
        let owner = query.integer("user_id", in: 1...Int.max)
        try query.finish()
        // The events of other users are hidden: a filter for another user finds nothing.
        let isMine = owner.map { $0 == Int(user.rawValue) } ?? true
        await log.flush()
        let found = isMine ? try await log.store.list(filter) : []
        let next = found.count == filter.limit ? found.last?.id.rawValue : nil
        return Response(json: ["items": .array(found.map(Self.json)), "next_cursor": .init(next)])
    }

    /// `GET /v1/audit/events/{id}`
    private func event(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let text = try context.parameters.require("id")
        await log.flush()
        guard let id = AuditEventID(rawValue: text), let event = try await log.store.event(id, owner: user) else {
            throw APIError(.notFound, "Audit event \(text.prefix(64)) not found")
        }
        return Response(json: Self.json(of: event))
    }

    /// `GET /v1/audit/catalog`: all types by their groups.
    private func catalog(_ request: Request, _ context: AppContext) async throws -> Response {
        _ = try await authenticator.user(request.headers)
        let groups = AuditEventType.catalog.map { group, types in
            JSONValue.Field(name: group, value: .array(types.map { .string($0) }))
        }
        return Response(json: ["catalog": .object(groups)])
    }

    private static func json(of event: AuditEvent) -> JSONValue {
        let details = event.details.sorted { $0.key < $1.key }.map { name, value in
            switch value {
            case .text(let text): JSONValue.Field(name: name, value: .string(text))
            case .number(let number): JSONValue.Field(name: name, value: .integer(number))
            }
        }
        return [
            "id": .string(event.id.rawValue),
            "created_at": .init(event.createdAt),
            "event_type": .string(event.type.rawValue),
            "event_group": .string(event.type.group),
            "status": .string(event.status.rawValue),
            "actor_id": .init(event.actor.id?.description),
            "actor_type": .string(event.actor.type),
            "user_id": .init(event.owner.map { Int($0.rawValue) }),
            "credential": .init(event.credential),
            "address": .init(event.address),
            "request_id": .init(event.requestID),
            "session_id": .init(event.session?.rawValue),
            "vm_id": .init(event.vmID),
            "resource_type": .init(event.type.resourceType),
            "resource_id": .init(event.shownResource),
            "event_payload": .object(details),
            "error_message": .init(event.message),
        ]
    }
}
