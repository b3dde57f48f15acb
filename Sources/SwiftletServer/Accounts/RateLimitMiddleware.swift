// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletStore
import Synchronization

/// Where the authenticator leaves what a rate limit said, for the headers of the answer.
final class RateLimitRecord: Sendable {
    @TaskLocal static var current: RateLimitRecord?

    private let decision = Mutex<RateDecision?>(nil)

    func note(_ decision: RateDecision) {
        self.decision.withLock { $0 = decision }
    }

    /// `RateLimit-Limit`, `-Remaining` and `-Reset`; none when no limit applied.
    fileprivate var headers: HTTPFields {
        guard let decision = decision.withLock({ $0 }) else { return [:] }
        let values = [
            ("RateLimit-Limit", decision.limit), ("RateLimit-Remaining", decision.remaining),
            ("RateLimit-Reset", Int(decision.resetAfter.rounded(.up))),
        ]
        return values.reduce(into: [:]) { headers, field in
            if let name = HTTPField.Name(field.0) { headers[name] = String(field.1) }
        }
    }
}

/// Tells users of limited plans in each answer, good or bad, what is left of their limit.
struct RateLimitMiddleware: RouterMiddleware {
    func handle(
        _ request: Request,
        context: AppContext,
        next: (Request, AppContext) async throws -> Response
    ) async throws -> Response {
        let record = RateLimitRecord()
        var response = try await RateLimitRecord.$current.withValue(record) { try await next(request, context) }
        response.headers.append(contentsOf: record.headers)
        return response
    }
}
