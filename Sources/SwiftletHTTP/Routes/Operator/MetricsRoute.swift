// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import NIOCore
import SwiftletAccounts
import SwiftletMetrics
import SwiftletSessions

/// `GET /metrics`, in Prometheus's text format (version 0.0.4).
struct MetricsRoute: Sendable {
    let services: ServerServices
    let http: HTTPMetrics

    var routes: [Route] { [Route(.get, "/metrics", .metrics, metrics)] }

    private func metrics(_ request: Request, _ context: AppContext) async throws -> Response {
        var buffer = ByteBuffer()
        let own = http.families + [services.accounts.admission.refusals.family, auditDrops]
        for family in await services.sessions.metrics() + services.executions.metrics() + own {
            Self.write(family, to: &buffer)
        }
        return Response(
            status: .ok,
            headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
            body: ResponseBody(byteBuffer: buffer)
        )
    }

    private var auditDrops: MetricFamily {
        MetricFamily(
            "swiftlet_audit_events_dropped_total",
            .counter,
            "Audit events that were lost because the database could not be written for long.",
            [.init(Double(services.audit.droppedCount))]
        )
    }

    private static func write(_ family: MetricFamily, to buffer: inout ByteBuffer) {
        buffer.writeString("# HELP \(family.name) \(family.help)\n# TYPE \(family.name) \(family.kind.rawValue)\n")
        for sample in family.samples {
            let labels = sample.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\"\(escaped($0.value))\"" }
            let suffix = labels.isEmpty ? "" : "{\(labels.joined(separator: ","))}"
            buffer.writeString("\(family.name)\(sample.suffix)\(suffix) \(sample.value)\n")
        }
    }

    private static func escaped(_ value: String) -> String {
        value.reduce(into: "") { text, character in
            switch character {
            case "\\": text += "\\\\"
            case "\"": text += "\\\""
            case "\n": text += "\\n"
            default: text.append(character)
            }
        }
    }
}
