// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import Logging
import SwiftletAccounts
import SwiftletJSON
import SwiftletSessions

/// Turns whatever is thrown into the contract's answer.
struct ErrorMiddleware: RouterMiddleware {
    /// The methods of each known path, to tell a wrong method from an unknown path.
    let methods: PathMethods

    func handle(
        _ request: Request,
        context: AppContext,
        next: (Request, AppContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch {
            let message = Self.message(of: error)
            RequestAuditContext.record { $0.message = message.map(Redaction.withoutKeys) }
            return answer(to: error, request: request, logger: .current)
        }
    }

    /// The message of an error for the audit log; for invalid input it has the problem, and never the input itself. Nil for an error
    /// whose message is for the operator alone.
    static func message(of error: any Error) -> String? {
        switch error {
        case let error as APIError: error.detail
        case let error as ValidationFailure:
            error.problems.first.map { "\($0.location.last?.text ?? ""): \($0.message)" }
        case let error as SessionError: error.description
        case let error as AdmissionError: error.description
        case let error as FileError: error.description
        default: nil
        }
    }

    private func answer(to error: any Error, request: Request, logger: Logger) -> Response {
        switch error {
        case let error as APIError: return error.response
        case let error as ValidationFailure: return error.response
        case let error as SessionError:
            if case .vmUnavailable(let reason) = error {
                logger.error("No VM could be started", metadata: ["reason": "\(reason)"])
            }
            if case .admission(let refusal) = error { return answer(to: refusal, request: request, logger: logger) }
            return APIError(error).response
        case let error as AdmissionError:
            if case .limitsUnavailable(let reason) = error {
                logger.error("A user's limits could not be checked", metadata: ["error": "\(reason)"])
            }
            return APIError(error).response
        case let error as FileError: return APIError(error).response
        case let error as HTTPError:
            return answer(to: error, request: request)
        default:
            // The message of an unknown error is for the operator only.
            logger.error("Request failed", metadata: ["error": "\(error)"])
            let id = RequestAuditContext.current?.requestID
            let body: JSONValue = ["detail": "Internal server error", "request_id": .init(id)]
            return APIError(.internalServerError, body: body).response
        }
    }

    private func answer(to error: HTTPError, request: Request) -> Response {
        guard error.status == .notFound else {
            return APIError(error.status, error.body ?? error.status.reasonPhrase).response
        }
        let allowed = methods.allowed(for: request.uri.path)
        guard !allowed.isEmpty, !allowed.contains(request.method) else {
            return APIError(.notFound, "Not Found").response
        }
        let list = (allowed.contains(.get) && !allowed.contains(.head) ? allowed + [.head] : allowed).map(\.rawValue)
            .joined(separator: ", ")
        return APIError(.methodNotAllowed, "Method Not Allowed", headers: [.allow: list]).response
    }
}

/// Which methods a path has; `{name}` stands for any one segment, `**` at the end for some.
struct PathMethods: Sendable {
    let entries: [(path: String, method: HTTPRequest.Method)]

    func isKnown(_ path: String) -> Bool { entries.contains { $0.path == path } }

    func allowed(for path: String) -> [HTTPRequest.Method] {
        let segments = path.split(separator: "/")
        return entries.filter { entry in
            var pattern = entry.path.split(separator: "/")
            let isOpen = pattern.last == "**"
            if isOpen { pattern.removeLast() }
            return (isOpen ? pattern.count < segments.count : pattern.count == segments.count)
                && zip(pattern, segments).allSatisfy { $0.hasPrefix("{") || $0 == $1 }
        }.map(\.method)
    }
}
