// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletMetrics

/// The metrics of requests.
struct HTTPMetrics: Sendable {
    private let answered = Counter("swiftlet_http_requests_total", "Requests, by method, route and status.")
    private let duration = Histogram(
        "swiftlet_http_request_seconds",
        "From a request's arrival to its answer's first byte, by method and route."
    )

    /// Counts a request. All unknown paths are counted together, as callers can invent any number of them.
    ///
    /// - Parameter status: the answer's number, or `aborted` or `disconnected` for a streamed response that did not end.
    func count(_ method: HTTPRequest.Method, route: String?, status: String, seconds: Double) {
        let labels = ["method": route == nil ? "any" : method.rawValue, "route": route ?? "none"]
        answered.add(labels.merging(["status": status]) { $1 })
        duration.observe(seconds, labels)
    }

    var families: [MetricFamily] { [answered.family, duration.family] }
}
