// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletCore
import SwiftletJSON

extension Operation {
    static let listExecutions = Operation(
        "listExecutions",
        .execution,
        "Lists executions, the newest first",
        parameters: [
            .query("limit", "How many.", .integer("", Limits.pageItems).orElse(.integer(Defaults.pageItems))),
            .query("before", "The id in `x-next-cursor`: those before it.", .executionID),
            .query("session_id", "Those of a session.", .uuid()),
            .query("status", "Those in a state.", .word(ExecutionState.allCases)),
            .query("language", "Those in a language.", .word(Language.allCases)),
        ],
        replies: [
            .ok(
                "Records without their output.",
                .array(of: .execution),
                headers: [
                    Header("x-next-cursor", "Where the next page begins; there when this one is full.", .executionID)
                ]
            )
        ]
    )

    static let getExecution = Operation(
        "getExecution",
        .execution,
        "What became of an execution",
        "With `serialized_stdout`, `serialized_stderr` and `results` once `is_complete`.",
        parameters: [.execution],
        replies: [.ok("The record.", .execution)],
        refusals: [.notFound]
    )

    static let getOutput = Operation(
        "getOutput",
        .execution,
        "An execution's output, as it is",
        parameters: [
            .execution,
            .query("stream", "Which one.", .word(ExecutionStream.allCases).orElse("stdout")),
            .query("offset", "The first byte.", .integer("", 0...(1 << 48)).orElse(.integer(0))),
            .query("limit", "Bytes at most.", .integer("", 1...(1 << 48))),
            .query(
                "wait",
                "Seconds to wait for something behind `offset`.",
                .integer("", 0...ExecutionRoutes.maximumWait).orElse(.integer(0))
            ),
        ],
        replies: [
            Reply(
                .ok,
                "Bytes from `offset` on.",
                .bytes(),
                headers: [
                    Header("x-next-offset", "Where to go on.", .count(), isRequired: true),
                    Header("x-complete", "Whether nothing follows.", .word(["true", "false"]), isRequired: true),
                    Header("x-dropped-bytes", "Bytes over the output limit.", .count(), isRequired: true),
                ]
            )
        ],
        refusals: [.notFound, .gone, .rangeNotSatisfiable]
    )

    static let followExecution = Operation(
        "followExecution",
        .execution,
        "An execution's events as they happen",
        """
        `start` (`execution_id`, `session_id`, `language`, `created_at`), `stdout` and `stderr` (`offset`, `bytes`, and `text`, or `base64` \
        where it is no UTF-8), `result`, and at the end `exit` with the fields of an answer. Nothing is lost and nothing comes twice \
        for a client that comes back with `Last-Event-ID`.
        """,
        parameters: [.execution, .lastEventID],
        replies: [
            Reply(.ok, "Events.", .events)
        ],
        refusals: [.badRequest, .notFound, .gone, .rangeNotSatisfiable]
    )

    static let cancelExecution = Operation(
        "cancelExecution",
        .execution,
        "Ends an execution",
        "One that is over stays as it is.",
        parameters: [.execution],
        replies: [.ok("What has become of it.", .execution)],
        refusals: [.notFound]
    )
}

extension Parameter {
    fileprivate static let execution = path("id", "The execution's id.", .executionID)
}
