// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletMetrics

/// What is counted of requests.
struct HTTPMetrics: Sendable {
    private let answered = Counter("swiftlet_http_requests_total", "Requests, by method, route and status.")
    private let duration = Histogram(
        "swiftlet_http_request_seconds",
        "From a request's arrival to its answer's first byte, by method and route."
    )

    /// Counts an answer. What no route has is counted as one: paths are the callers' to invent.
    func count(_ method: HTTPRequest.Method, route: String?, status: Int, seconds: Double) {
        let labels = ["method": route == nil ? "any" : method.rawValue, "route": route ?? "none"]
        answered.add(labels.merging(["status": "\(status)"]) { $1 })
        duration.observe(seconds, labels)
    }

    var families: [MetricFamily] { [answered.family, duration.family] }
}
