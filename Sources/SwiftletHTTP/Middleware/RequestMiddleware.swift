// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import Logging
import SwiftletCore

/// Gives each request an id, which is in all log lines that the request causes; counts the request, writes one log line about it, and audits it.
///
/// A streamed response is counted and logged when its body has ended: one whose source failed after the head was sent is an error,
/// whatever status the head had.
struct RequestMiddleware: RouterMiddleware {
    private static let requestID = HTTPField.Name("x-request-id")

    /// The paths and methods of all routes.
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
        let facts = RequestAuditContext(requestID: id)
        var logger = context.logger
        logger[metadataKey: "hb.request.id"] = nil
        logger[metadataKey: "request.id"] = "\(id)"
        var response = try await withLogger(logger) { _ in
            try await RequestAuditContext.$current.withValue(facts) { try await next(request, context) }
        }
        if let name = Self.requestID { response.headers[name] = id }
        let report = RequestReport(
            facts: facts,
            audit: auditMiddleware.pending(facts, status: response.status.code, request, context),
            method: request.method,
            path: Redaction.withoutKeys(String(request.uri.path.prefix(200))),
            route: context.endpointPath.flatMap { methods.isKnown($0) ? $0 : nil },
            status: response.status.code,
            started: started,
            metrics: metrics,
            logger: logger
        )
        await report.headIsReady()
        if let stream = facts.stream {
            stream.whenEnded { report.responseEnded($0) }
        } else {
            report.responseEnded(.complete)
        }
        return response
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

/// The record of one request for the log, the metrics and the audit log.
private struct RequestReport: Sendable {
    let facts: RequestAuditContext
    let audit: AuditMiddleware.Pending?
    let method: HTTPRequest.Method
    let path: String
    let route: String?
    let status: Int
    let started: ContinuousClock.Instant
    /// When the head was ready to be sent.
    let answered = ContinuousClock.now
    let metrics: HTTPMetrics
    let logger: Logger

    /// Audits the request before its answer, unless the event is about the content that is sent.
    func headIsReady() async {
        guard let audit, !isAuditedAtEnd else { return }
        await audit.record()
    }

    func responseEnded(_ outcome: ResponseOutcome) {
        if let audit, isAuditedAtEnd { audit.append(outcome) }
        let label = outcome.label(status: status)
        metrics.count(method, route: route, status: label, seconds: (answered - started) / .seconds(1))
        var metadata = Self.metadata(of: facts.facts)
        metadata["http.method"] = "\(method)"
        metadata["http.path"] = "\(path)"
        metadata["http.route"] = "\(route ?? "none")"
        metadata["http.status"] = "\(label)"
        metadata["duration_ms"] = "\(((ContinuousClock.now - started) / .seconds(1) * 1e6).rounded() / 1e3)"
        if case .aborted(let error) = outcome { metadata["error"] = "\(Redaction.withoutKeys("\(error)"))" }
        logger.log(level: level(of: outcome), "Request", metadata: metadata)
    }

    private var isAuditedAtEnd: Bool { audit?.isOfContent == true && facts.stream != nil }

    private func level(of outcome: ResponseOutcome) -> Logger.Level {
        if case .aborted = outcome { return .error }
        // Monitoring asks for these every few seconds.
        return ["/health", "/metrics"].contains(path) ? .debug : .info
    }

    private static func metadata(of facts: RequestAuditContext.Facts) -> Logger.Metadata {
        var metadata: Logger.Metadata = [:]
        metadata["user.id"] = facts.user.map { "\($0)" }
        metadata["session.id"] = facts.session.map { "\($0)" }
        metadata["vm.id"] = facts.vmID.map { "\($0)" }
        if facts.type?.resourceType == "execution" { metadata["execution.id"] = facts.resource.map { "\($0)" } }
        return metadata
    }
}

extension ResponseOutcome {
    /// The `status` of the metric and of the log line: the number that was sent, or why the response ended before its end.
    fileprivate func label(status: Int) -> String {
        switch self {
        case .complete: "\(status)"
        case .aborted: "aborted"
        case .disconnected: "disconnected"
        }
    }
}
