// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import SwiftletJSON

/// `GET /health`: whether the server answers.
struct HealthRoute: Sendable {
    let version: String

    var routes: [Route] {
        [
            Route(.get, "/health", .health) { [version] _, _ in
                Response(json: ["status": "ok", "version": .string(version)])
            }
        ]
    }
}

extension Operation {
    fileprivate static let health = Operation(
        "getHealth",
        .server,
        "Whether the server answers",
        access: .open,
        replies: [
            .ok("It does.", .named("Health", .object(["status": .word(["ok"]), "version": .string()])))
        ]
    )

    static let metrics = Operation(
        "getMetrics",
        .server,
        "Numbers for Prometheus",
        access: .open,
        replies: [Reply(.ok, "Prometheus's text format, version 0.0.4.", Content(types: [("text/plain", .string())]))]
    )
}
