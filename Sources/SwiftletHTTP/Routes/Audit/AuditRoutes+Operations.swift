// SPDX-License-Identifier: Apache-2.0

import SwiftletCore
import SwiftletJSON

extension Operation {
    static let listAuditEvents = Operation(
        "listAuditEvents",
        .audit,
        "What the caller did, and what was done to what is theirs",
        "The newest first.",
        parameters: [
            .query("event_group", "Those of a group.", .word(AuditEventType.catalog.map(\.group))),
            .query("event_type", "Those of a type.", .word(AuditEventType.catalog.flatMap(\.types))),
            .query("status", "Those that ended so.", .word(AuditStatus.allCases)),
            .query("user_id", "Those that concern a user; only oneself has any.", .integer("", 1...Int.max)),
            .query("session_id", "Those of a session.", .uuid()),
            .query("vm_id", "Those of a VM.", .string(length: 0...Limits.vmIDBytes)),
            .query("cursor", "The `next_cursor` of an answer: what follows it.", .string()),
            .query(
                "limit",
                "How many.",
                .integer("", Limits.auditPageItems)
                    .orElse(.integer(Defaults.auditPageItems))
            ),
        ],
        replies: [
            .ok(
                "A page of them.",
                .named(
                    "AuditEvents",
                    .object(["items": .array(of: .auditEvent), "next_cursor": .string().nullable])
                )
            )
        ]
    )

    static let getAuditEvent = Operation(
        "getAuditEvent",
        .audit,
        "One audit event",
        parameters: [.path("id", "The event's id.", .string())],
        replies: [.ok("The event.", .auditEvent)],
        refusals: [.notFound]
    )

    static let auditCatalog = Operation(
        "auditCatalog",
        .audit,
        "All types of audit events, by group",
        replies: [
            .ok(
                "The types.",
                .named("AuditCatalog", .object(["catalog": .map(of: .array(of: .string()))]))
            )
        ]
    )
}

extension Schema {
    fileprivate static let auditEvent = named(
        "AuditEvent",
        .object([
            "id": .string(),
            "created_at": .moment(),
            "event_type": .string(),
            "event_group": .string(),
            "status": .word(AuditStatus.allCases),
            "actor_id": .string().nullable,
            "actor_type": .string(),
            "user_id": .integer("Whom it concerns.").nullable,
            "credential": .string("Which key, or what else; never its text.").nullable,
            "address": .string("Where the request came from.").nullable,
            "request_id": .string().nullable,
            "session_id": .string().nullable,
            "vm_id": .string().nullable,
            "resource_type": .string().nullable,
            "resource_id": .string().nullable,
            "event_payload": .map(of: .anything),
            "error_message": .string().nullable,
        ])
    )
}
