// SPDX-License-Identifier: Apache-2.0

import SwiftletCore
import SwiftletJSON

extension Operation {
    // MARK: Users

    static let me = Operation(
        "getCurrentUser",
        .users,
        "Who the caller is",
        replies: [
            .ok(
                "The caller.",
                .named(
                    "User",
                    .object([
                        "id": .integer(), "email": .string(), "name": .string(), "is_verified": .flag(),
                        "plan": .string(),
                    ])
                )
            )
        ]
    )

    static let limits = Operation(
        "getLimits",
        .users,
        "The plan's limits, and what is left of them",
        replies: [
            .ok(
                "Null is no limit.",
                .named(
                    "Limits",
                    .object([
                        "plan": .string(), "requests": .rate, "new_vms": .rate, "concurrent_vms": .share,
                        "concurrent_executions": .share, "vm_lifetime_seconds": .count().nullable,
                        "memory_mb": .count().nullable, "vcpu_count": .count().nullable, "disk_mb": .count().nullable,
                        "output_bytes": .count().nullable, "egress": .flag(),
                    ])
                )
            )
        ]
    )

    static let usageBreakdown = Operation(
        "getUsageBreakdown",
        .users,
        "What all of the caller's sessions have used, by UTC day",
        parameters: [
            .query(
                "days",
                "How many days up to today.",
                .integer("", Limits.usageDays).orElse(.integer(Defaults.usageDays))
            ),
            .query("start_date", "The first day.", .dateOrNone),
            .query(
                "end_date",
                "The last day; both are included, and \(Limits.usageDays.upperBound) at most.",
                .dateOrNone
            ),
        ],
        replies: [
            .ok(
                "Days, the oldest first.",
                .named(
                    "UsageBreakdown",
                    .object([
                        "period_start": .date, "period_end": .date, "total_days": .count(), "totals": .dayUsage,
                        "daily_breakdown": .array(of: .all([.object(["date": .date]), .dayUsage])),
                    ])
                )
            )
        ]
    )

    // MARK: API keys

    static let createKey = Operation(
        "createAPIKey",
        .keys,
        "Makes an API key",
        "Only this answer has the key's text. Without a body the key has no description and does not expire.",
        body: .json(
            .named(
                "KeyRequest",
                .object(optional: [
                    "description": .keyDescription.nullable, "expires_at": .expiry.nullable,
                    "expires_in": .integer("Seconds from now, in place of `expires_at`.", Limits.keyLifetimeSeconds)
                        .nullable,
                ])
            ),
            isRequired: false,
            example: ["description": "laptop", "expires_in": .integer(86_400)]
        ),
        replies: [
            .ok(
                "The key.",
                .named(
                    "NewAPIKey",
                    .all([.key, .object(["api_key": .string("The key's text."), "key": .string("The same.")])])
                )
            )
        ],
        refusals: [.conflict]
    )

    static let listKeys = Operation(
        "listAPIKeys",
        .keys,
        "Lists the caller's keys, the oldest first",
        replies: [.ok("Keys that were not revoked.", .array(of: .key))]
    )

    static let getKey = Operation(
        "getAPIKey",
        .keys,
        "One of the caller's keys",
        parameters: [.key],
        replies: [.ok("The key.", .key)],
        refusals: [.notFound]
    )

    static let updateKey = Operation(
        "updateAPIKey",
        .keys,
        "Changes a key's description or expiry",
        "What is not named stays; `\"expires_at\": null` takes an expiry away.",
        parameters: [.key],
        body: .json(
            .named(
                "KeyChange",
                .object(optional: [
                    "description": .keyDescription.nullable, "expires_at": .expiry.nullable,
                    "expires_in": .integer("Seconds from now, in place of `expires_at`.", Limits.keyLifetimeSeconds)
                        .nullable,
                ])
            ),
            isRequired: false,
            example: ["description": "laptop"]
        ),
        replies: [.ok("The key.", .key)],
        refusals: [.notFound]
    )

    static let deleteKey = Operation(
        "deleteAPIKey",
        .keys,
        "Revokes a key, at once and for good",
        parameters: [.key],
        replies: [
            .ok("It is revoked.", .named("KeyDeleted", .object(["status": .word(["success"]), "id": .integer()])))
        ],
        refusals: [.notFound]
    )
}

extension Parameter {
    fileprivate static let key = path("id", "The key's number.", .integer("", 1...Int(Int32.max)))
}

extension Schema {
    fileprivate static let date = string("A UTC day.").with("format", "date")
    /// An empty one is none.
    fileprivate static let dateOrNone = any([date, string().with("const", "")])
    fileprivate static let keyDescription = string("What it is for.", length: 0...Limits.keyDescriptionBytes)
    fileprivate static let expiry = string("A moment in ISO 8601, in the future; UTC without a zone.")
        .example("2099-01-31T12:00:00Z")

    fileprivate static let key = named(
        "APIKey",
        .object([
            "id": .integer(), "description": .string(), "prefix": .string("How the key begins."),
            "created_at": .moment(), "last_used_at": .moment("Exact to about a minute").nullable,
            "expires_at": .moment().nullable,
        ])
    )

    fileprivate static let rate = named(
        "Rate",
        .object([
            "per_minute": .count(), "burst": .count("How many may come at once."), "remaining": .count(),
            "reset_seconds": .number("Seconds until it is whole."),
        ])
    ).nullable

    fileprivate static let share = named(
        "Share",
        .object(["limit": .count().nullable, "used": .count(), "remaining": .count().nullable])
    )

    fileprivate static let dayUsage = named(
        "Usage",
        .object([
            "cost_dollars": .number("Always 0."), "cpu_hours": .number("Hours of virtual processors."),
            "ram_gib_hours": .number(),
        ])
    )
}
