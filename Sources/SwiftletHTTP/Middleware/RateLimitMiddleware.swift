// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletCore
import Synchronization

/// Holds the rate limit's decision on a request, for the headers of the response.
final class RateLimitRecord: Sendable {
    @TaskLocal static var current: RateLimitRecord?

    private let decision = Mutex<RateDecision?>(nil)

    func record(_ decision: RateDecision) {
        self.decision.withLock { $0 = decision }
    }

    fileprivate var headers: HTTPFields { decision.withLock { $0 }?.headers ?? [:] }
}

extension RateDecision {
    /// `RateLimit-Limit`, `-Remaining` and `-Reset`.
    var headers: HTTPFields {
        let values = [
            ("RateLimit-Limit", limit), ("RateLimit-Remaining", remaining),
            ("RateLimit-Reset", Int(resetAfter.rounded(.up))),
        ]
        return values.reduce(into: [:]) { headers, field in
            if let name = HTTPField.Name(field.0) { headers[name] = String(field.1) }
        }
    }
}

/// Adds the `RateLimit` headers to the responses of users with a limited plan, errors included. A response that has the headers of
/// another limit keeps them.
struct RateLimitMiddleware: RouterMiddleware {
    func handle(
        _ request: Request,
        context: AppContext,
        next: (Request, AppContext) async throws -> Response
    ) async throws -> Response {
        let record = RateLimitRecord()
        var response = try await RateLimitRecord.$current.withValue(record) { try await next(request, context) }
        for field in record.headers where response.headers[field.name] == nil { response.headers.append(field) }
        return response
    }
}
