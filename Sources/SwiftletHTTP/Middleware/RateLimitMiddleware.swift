// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletCore
import Synchronization

/// Where the authenticator leaves what a rate limit said, for the headers of the answer.
final class RateLimitRecord: Sendable {
    @TaskLocal static var current: RateLimitRecord?

    private let decision = Mutex<RateDecision?>(nil)

    func note(_ decision: RateDecision) {
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

/// Tells users of limited plans in each answer, good or bad, what is left of their limit on requests; what another limit refused
/// tells of that one.
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
