// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

extension Operation {
    static let execute = Operation(
        "execute",
        .execution,
        "Executes a command in an available microVM",
        """
        `timeout` is how long the caller waits for the answer, which comes before; the VM's lifetime is the session's `vm_lifetime_seconds`. The \
        first call of a session spawns its VM; later ones reuse it until its lifetime ends, and the next gets a fresh one: `vm_id` and \
        `vm_started_at` change. Without `session_id` a session is created. A program that fails is a 200 with its exit code.

        With `Accept: text/event-stream` or `stream=true` the answer is a stream of events, as of `GET /v1/executions/{id}/events`; a \
        client that was cut off goes on with `Last-Event-ID`, and the body is not read then.
        """,
        parameters: [
            .query("stream", "`true`: answer with events as they happen.", .string()), .idempotencyKey,
            .header("Last-Event-ID", "With events: goes on behind one that the client has got.", .string()),
        ],
        body: .json(.commandRequest, example: ["command": "print(6 * 7)", "timeout": .integer(30)]),
        replies: [
            Reply(
                .ok,
                "What became of it, or its events.",
                .json(.executionResult).or(.events),
                headers: [.replayed]
            ),
            missingSource,
        ],
        refusals: [.forbidden, .notFound, .gone, .rangeNotSatisfiable]
    )

    static let executeAsync = Operation(
        "executeAsync",
        .execution,
        "Executes a command in the background",
        "Without `timeout` it may run as long as its VM lives; else the time counts from the moment when the code begins.",
        parameters: [.idempotencyKey],
        body: .json(.commandRequest, example: ["command": "sleep 1; echo done", "language": "bash"]),
        replies: [
            .ok(
                "It is accepted.",
                .named(
                    "ExecutionTask",
                    .object([
                        "task_id": .executionID, "id": .executionID, "status": .word(ExecutionState.allCases),
                        "session_id": .uuid(), "created_at": .moment(),
                    ])
                ),
                headers: [.replayed]
            ),
            missingSource,
        ],
        refusals: [.forbidden, .notFound]
    )

    /// Clients that read results get one.
    private static let missingSource = Reply(
        .badRequest,
        "Neither `code` nor `command`, or a language that there is not.",
        .json(
            .named(
                "MissingSource",
                .object(
                    ["detail": .string("What is wrong.")],
                    optional: [
                        "stdout": .string(), "stderr": .string(), "execution_time": .number(), "cpu_time": .number(),
                    ]
                )
            )
        )
    )
}

extension Parameter {
    static let idempotencyKey = header(
        "Idempotency-Key",
        "The same request with the same key runs once in 24 hours; a retry gets the first one's answer. Printable ASCII.",
        .string(length: Limits.idempotencyKeyBytes).with("pattern", "^[ -~]+$")
    )

    static let lastEventID = header(
        "Last-Event-ID",
        "The id of the last event that the client has got: the answer goes on behind it.",
        .string().with("pattern", #"^(exec-[0-9a-f]{32}:[0-9]+\.[0-9]+\.[0-9]+)?$"#)
    )
}

extension Content {
    static let events = Content(types: [
        (
            "text/event-stream",
            .named(
                "ExecutionEvent",
                .object(
                    [
                        "event": .word(["start", "stdout", "stderr", "result", "exit"]),
                        "data": .string("An object in JSON, as the operation describes it."),
                    ],
                    optional: [
                        "id": .string("Where it ends: for `Last-Event-ID`."),
                        "retry": .count("Milliseconds; of `start`."),
                    ],
                    about: "A server-sent event (WHATWG HTML, 9.2), field by field."
                )
            )
        )
    ])
}

extension Header {
    static let replayed = Header(
        "idempotent-replayed",
        "There when the answer is an earlier request's.",
        .word(["true"])
    )
}

extension Schema {
    static let executionID = string("An execution's id.").with("pattern", "^exec-[0-9a-f]{32}$")

    static let commandRequest = named(
        "CommandRequest",
        .object(
            optional: [
                "command": .string("The source to run, up to 16 MiB.").nullable,
                "code": .string("The same; it counts if both are given.").nullable,
                "api_key": .string("A key, in place of a header.").nullable,
                "session_id": .string("The session to run it in; without one a session is created.").nullable,
                "language": .string(
                    "`python` (`py`, `python3`), `bash` (`sh`, `shell`) or `javascript` (`js`, `node`)."
                )
                .orElse("python").nullable,
                "timeout": .integer("Seconds that the caller waits for the answer.", Limits.timeoutSeconds)
                    .orElse(.integer(Defaults.timeoutSeconds)),
                "vault_ids": .array(of: .string(), "Ids of vaults.").nullable,
            ],
            about: "Code or a command to run."
        )
    )

    static let executionResult = named(
        "ExecutionResult",
        .all([
            .object([
                "stdout": .string("The output; bytes that are no UTF-8 are U+FFFD."),
                "stderr": .string("As `stdout`; our own words about the end are its last lines."),
                "exit_code": .integer(
                    "From the guest's `wait`: 128 + n for signal n, 124 for a timeout, -1 when there is none."
                ),
                "results": .results,
            ]),
            .executionFacts,
        ])
    )

    static let execution = named(
        "Execution",
        .all([
            .object(
                [
                    "id": .executionID, "task_id": .executionID, "status": .word(ExecutionState.allCases),
                    "is_complete": .flag("Whether it is over."),
                    "mode": .word(["sync", "async", "stream"], "How its caller waits."),
                    "timeout": .number("Seconds.").nullable, "started_at": .moment().nullable,
                    "ended_at": .moment().nullable, "output_expired": .flag("Whether its output is not kept any more."),
                    "exit_code": .integer("Null while there is no end.").nullable,
                ],
                optional: [
                    "serialized_stdout": .string("The output, once it is over and one execution is asked for."),
                    "serialized_stderr": .string(), "results": .results,
                ]
            ),
            .executionFacts,
        ])
    )

    private static let results = array(
        of: .named(
            "RichResult",
            .object([
                "type": .word(["execute_result", "display_data"]),
                "data": .map(of: .anything, "Contents by MIME type."),
                "metadata": .map(of: .anything),
            ])
        ),
        "What was shown, in order, as a notebook has it."
    )

    private static let executionFacts = named(
        "ExecutionFacts",
        .object([
            "execution_id": .executionID, "session_id": .uuid(), "language": .word(Language.allCases),
            "created_at": .moment(), "execution_time": .number("Seconds on the clock."),
            "cpu_time": .number("Seconds of processor time."), "vm_id": .string("The VM that ran it.").nullable,
            "vm_started_at": .moment().nullable, "outcome": .word(ExecutionState.allCases, "How it stands, or ended."),
            "signal": .integer("The signal that ended it.").nullable, "timed_out": .flag(),
            "state_lost": .flag("Whether the interpreter is gone with its variables."),
            "note": .string("Our words about the end.").nullable, "restore": .restore.nullable,
            "stdout_bytes": .count(), "stderr_bytes": .count(),
            "stdout_dropped_bytes": .count("Bytes over the output limit."), "stderr_dropped_bytes": .count(),
            "results_dropped": .count("Results that were left out."),
        ])
    )

    private static let restore = named(
        "Restore",
        .object(
            [
                "generation": .string("New each time."), "origin": .word(["pool", "template", "boot"]),
                "template": .string().nullable,
                "confirmed": .array(of: .string(), "What the guest made its own before any code ran."),
                "milliseconds": .count(),
            ],
            about: "How the VM became itself."
        )
    )
}
