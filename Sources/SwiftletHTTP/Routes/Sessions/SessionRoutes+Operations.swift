// SPDX-License-Identifier: Apache-2.0

import SwiftletCore
import SwiftletJSON
import SwiftletSessions

extension Operation {
    static let createSession = Operation(
        "createSession",
        .sessions,
        "Creates a session",
        "Its VM is spawned by the first call that needs one. Clients send their key as `api_key` in the body.",
        body: .json(.sessionRequest, example: ["vm_lifetime_seconds": .integer(600), "metadata": ["purpose": "demo"]]),
        replies: [.ok("The session.", .session)],
        refusals: [.forbidden]
    )

    static let getSession = Operation(
        "getSession",
        .sessions,
        "What a session is",
        "Names of its variables, never their values.",
        parameters: [.session],
        replies: [.ok("The session.", .session)],
        refusals: [.notFound]
    )

    static let updateSession = Operation(
        "updateSession",
        .sessions,
        "Gives a session a longer lifetime or other metadata",
        "A lifetime counts from the living VM's start. It cannot be made shorter: 409.",
        parameters: [.session],
        body: .json(
            .named(
                "SessionChange",
                .object(optional: [
                    "api_key": .apiKey, "vm_lifetime_seconds": .lifetime.nullable,
                    "metadata": .metadata("In place of what was there.").nullable,
                ])
            ),
            example: ["metadata": ["purpose": "demo"]]
        ),
        replies: [.ok("The session.", .session)],
        refusals: [.forbidden, .notFound, .conflict]
    )

    static let deleteSession = Operation(
        "deleteSession",
        .sessions,
        "Kills a session's VM and forgets the session",
        "Code that runs ends with `vm_lost`.",
        parameters: [.session],
        replies: [
            .ok(
                "It is forgotten.",
                .named(
                    "SessionDeleted",
                    .object(["status": .word(["success"]), "message": .string(), "session_id": .uuid()])
                )
            )
        ],
        refusals: [.notFound]
    )

    static let sessionStatus = Operation(
        "getSessionStatus",
        .sessions,
        "How a session's VM does",
        parameters: [.session],
        replies: [
            .ok(
                "Each key is always there.",
                .named(
                    "SessionStatus",
                    .object([
                        "session_id": .uuid(), "exists": .flag(), "vm_assigned": .flag("Whether it ever had a VM."),
                        "vm_status": .vmStatus.nullable, "vm_id": .string().nullable, "vm_alive": .flag(),
                        "uptime_seconds": .number().nullable,
                        "expires_in_seconds": .number("Seconds until the VM is killed.").nullable,
                        "created_at": .moment(),
                    ])
                )
            )
        ],
        refusals: [.notFound]
    )

    static let listSandboxes = Operation(
        "listSandboxes",
        .sessions,
        "Lists the sessions whose VM lives, the youngest first",
        parameters: [
            .query(
                "metadata",
                "A JSON object: those that have all its pairs.",
                .string().example(#"{"purpose": "demo"}"#)
            ),
            .query("limit", "How many.", .integer("", Limits.pageItems).orElse(.integer(Defaults.pageItems))),
        ],
        replies: [
            .ok(
                "Living VMs.",
                .array(
                    of: .named(
                        "Sandbox",
                        .object([
                            "sandbox_id": .string("The VM's id."), "session_id": .uuid(),
                            "template_id": .string().nullable,
                            "name": .string(), "metadata": .metadata(), "started_at": .moment(), "end_at": .moment(),
                            "status": .vmStatus,
                        ])
                    )
                )
            )
        ]
    )

    static let killVM = Operation(
        "killVM",
        .sessions,
        "Kills a session's VM",
        "The next call of the session gets a fresh one.",
        body: .json(.named("KillRequest", .object(["session_id": .string()], optional: ["api_key": .apiKey]))),
        replies: [
            .ok(
                "It is dead.",
                .named(
                    "Killed",
                    .object([
                        "status": .word(["success"]), "message": .string(), "vm_id": .string(), "session_id": .uuid(),
                    ])
                )
            )
        ],
        refusals: [.badRequest, .notFound]
    )

    static let sessionUsage = Operation(
        "getSessionUsage",
        .sessions,
        "What a session has used up to now",
        parameters: [.session],
        replies: [
            .ok(
                "Its VMs' and executions' use.",
                .named(
                    "SessionUsage",
                    .object([
                        "session_id": .uuid(), "created_at": .moment(), "vm_count": .count(), "vm_seconds": .number(),
                        "vcpu_seconds": .number(), "memory_gib_seconds": .number(), "executions": .count(),
                        "cpu_time": .number(), "execution_time": .number(), "output_bytes": .count(),
                    ])
                )
            )
        ],
        refusals: [.notFound]
    )
}

extension Parameter {
    static let session = path("id", "The session's id.", .uuid())
}

extension Schema {
    static let apiKey = string("A key, in place of a header.").nullable

    fileprivate static let lifetime = integer("How long a VM lives, from its start.", Limits.vmLifetimeSeconds)
    fileprivate static let vmStatus = word(["starting", "active", "killed"])

    fileprivate static func metadata(_ about: String = "") -> Schema { map(of: .anything, about) }

    fileprivate static let sessionRequest = named(
        "SessionRequest",
        .object(optional: [
            "api_key": .apiKey, "vm_lifetime_seconds": .lifetime.nullable,
            "memory_mb": .integer("The VM's memory in MiB.", Limits.memoryMB).nullable,
            "vcpu_count": .integer("The VM's processors.").with("enum", .array(Limits.vcpuCounts.map { .integer($0) }))
                .nullable,
            "env": .map(of: .string(), "Variables of its programs: 32 KiB in all, no NUL, no `=` in a name.").nullable,
            "metadata": .metadata("Anything of the caller's, up to 64 KiB.").nullable,
        ])
    )

    fileprivate static let session = named(
        "Session",
        .object(
            [
                "session_id": .uuid(), "created_at": .moment(), "vm_lifetime_seconds": .count(), "memory_mb": .count(),
                "vcpu_count": .count(), "metadata": .metadata().nullable,
                "env": .array(of: .string(), "Names of its variables."), "vm_id": .string().nullable,
                "vm_started_at": .moment().nullable, "expires_at": .moment("When the VM is killed").nullable,
                "status": .vmStatus,
            ],
            optional: ["vm_end_reason": .string("Why the last VM ended.").nullable]
        )
    )
}
