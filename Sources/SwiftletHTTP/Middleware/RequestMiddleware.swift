// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import Logging
import SwiftletCore

/// Gives each request an id, which is in all lines of the log that it causes, counts it, writes one line about it, and audits it.
struct RequestMiddleware: RouterMiddleware {
    private static let requestID = HTTPField.Name("x-request-id")

    /// The routes that there are.
    let methods: PathMethods
    let metrics: HTTPMetrics
    let auditMiddleware: AuditMiddleware

    func handle(
        _ request: Request,
        context: AppContext,
        next: (Request, AppContext) async throws -> Response
    ) async throws -> Response {
        let started = ContinuousClock.now
        let id = Self.validID(request) ?? context.id
        let trail = RequestAuditContext(requestID: id)
        var logger = context.logger
        logger[metadataKey: "hb.request.id"] = nil
        logger[metadataKey: "request.id"] = "\(id)"
        var response = try await withLogger(logger) { _ in
            try await RequestAuditContext.$current.withValue(trail) { try await next(request, context) }
        }
        if let name = Self.requestID { response.headers[name] = id }
        await auditMiddleware.audit(trail, status: response.status.code, request, context)
        let seconds = (ContinuousClock.now - started) / .seconds(1)
        let route = context.endpointPath.flatMap { methods.isKnown($0) ? $0 : nil }
        metrics.count(request.method, route: route, status: response.status.code, seconds: seconds)
        // What monitoring asks every few seconds would bury the rest.
        let isRoutine = ["/health", "/metrics"].contains(request.uri.path)
        var metadata = Self.metadata(of: trail.facts)
        metadata["http.method"] = "\(request.method)"
        metadata["http.path"] = "\(Redaction.withoutKeys(String(request.uri.path.prefix(200))))"
        metadata["http.route"] = "\(route ?? "none")"
        metadata["http.status"] = "\(response.status.code)"
        metadata["duration_ms"] = "\((seconds * 1e6).rounded() / 1e3)"
        logger.log(level: isRoutine ? .debug : .info, "Request", metadata: metadata)
        return response
    }

    private static func metadata(of facts: RequestAuditContext.Facts) -> Logger.Metadata {
        var metadata: Logger.Metadata = [:]
        metadata["user.id"] = facts.user.map { "\($0)" }
        metadata["session.id"] = facts.session.map { "\($0)" }
        metadata["vm.id"] = facts.vmID.map { "\($0)" }
        if facts.type?.resourceType == "execution" { metadata["execution.id"] = facts.resource.map { "\($0)" } }
        return metadata
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
