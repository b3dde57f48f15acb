// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import Logging
import SwiftletSessions

/// Gives each request an id, turns whatever is thrown into the contract's answer, and writes one line about it.
struct ErrorMiddleware: RouterMiddleware {
    private static let requestID = HTTPField.Name("x-request-id")

    /// The methods of each known path, to tell a wrong method from an unknown path.
    let methods: PathMethods
    let metrics: HTTPMetrics

    func handle(
        _ request: Request,
        context: AppContext,
        next: (Request, AppContext) async throws -> Response
    ) async throws -> Response {
        let started = ContinuousClock.now
        let id = Self.validID(request) ?? context.id
        var logger = context.logger
        logger[metadataKey: "request.id"] = "\(id)"
        var response: Response
        do {
            response = try await next(request, context)
        } catch {
            response = answer(to: error, request: request, logger: logger, id: id)
        }
        if let name = Self.requestID { response.headers[name] = id }
        let elapsed = (ContinuousClock.now - started) / .milliseconds(1)
        let route = context.endpointPath.flatMap { methods.isKnown($0) ? $0 : nil }
        metrics.count(request.method, route: route, status: response.status.code, seconds: elapsed / 1_000)
        // What monitoring asks every few seconds would bury the rest.
        let isRoutine = ["/health", "/metrics"].contains(request.uri.path)
        logger.log(
            level: isRoutine ? .debug : .info,
            "Request",
            metadata: [
                "http.method": "\(request.method)",
                "http.path": "\(request.uri.path.prefix(200))",
                "http.status": "\(response.status.code)",
                "duration_ms": "\(elapsed)",
            ]
        )
        return response
    }

    private func answer(to error: any Error, request: Request, logger: Logger, id: String) -> Response {
        switch error {
        case let error as APIError: return error.response
        case let error as ValidationFailure: return error.response
        case let error as SessionError:
            if case .vmUnavailable(let reason) = error {
                logger.error("No VM could be started", metadata: ["reason": "\(reason)"])
            }
            if case .limitsUnavailable(let reason) = error {
                logger.error("A user's limits could not be checked", metadata: ["error": "\(reason)"])
            }
            return APIError(error).response
        case let error as FileError: return APIError(error).response
        case let error as HTTPError:
            return answer(to: error, request: request)
        default:
            // The words of an unknown error are for the operator only.
            logger.error("Request failed", metadata: ["error": "\(error)"])
            let body: JSONValue = ["detail": "Internal server error", "request_id": .string(id)]
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

    /// The caller's own id, if it is short and plain.
    private static func validID(_ request: Request) -> String? {
        guard let name = requestID, let id = request.headers[name], (1...64).contains(id.utf8.count) else { return nil }
        let isPlain = id.utf8.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || (0x61...0x7a).contains($0) || $0 == 0x2d
                || $0 == 0x5f
        }
        return isPlain ? id : nil
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
