// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletAccounts
import SwiftletCore

/// Makes the audit events of all requests.
struct AuditMiddleware: Sendable {
    let log: AuditBuffer
    let addresses: ClientAddressResolver

    /// The event of a request that has its answer; nil when the request is not audited.
    func pending(_ trail: RequestAuditContext, status code: Int, _ request: Request, _ context: AppContext) -> Pending?
    {
        let facts = trail.facts
        guard let (type, status) = facts.outcome(code) else { return nil }
        let actor = facts.user.map { AuditEvent.Actor.user($0) } ?? .anonymous
        var event = AuditEvent(type, status, by: actor, owner: facts.user ?? facts.owner)
        event.credential = facts.credential
        event.address = addresses.clientAddress(of: request, context).name
        event.requestID = trail.requestID
        event.session = facts.session
        event.vmID = facts.vmID
        if type == facts.type { event.resourceID = facts.resource }
        event.details = facts.details
        return Pending(
            event: event,
            message: facts.message,
            httpStatus: code,
            route: "\(request.method) \(context.endpointPath ?? "none")",
            log: log
        )
    }

    /// An event that is not in the log yet.
    struct Pending: Sendable {
        fileprivate let event: AuditEvent
        fileprivate let message: String?
        fileprivate let httpStatus: Int
        fileprivate let route: String
        fileprivate let log: AuditBuffer

        /// Whether the event says that a content was sent, so that it is known at the content's end alone.
        var isOfContent: Bool { event.type == .fileDownloaded && event.status == .success }

        /// Adds the event to the log; returns when it is durable, if it must be before the answer.
        func record() async {
            guard event.status == .success else {
                // Refusals come in floods: only the first of its kind can cost a write.
                if log.appendRefusal(failed(event.status, message)), event.type.isWrittenAtOnce { await log.flush() }
                return
            }
            if event.type.isWrittenAtOnce { await log.record(event) } else { log.append(event) }
        }

        /// Adds the event of a content that was sent, or not to its end.
        func append(_ outcome: ResponseOutcome) {
            switch outcome {
            case .complete:
                log.append(event)
            case .aborted(let error):
                let reason = ErrorMiddleware.message(of: error).map(Redaction.withoutKeys)
                log.appendRefusal(
                    failed(.error, "The content could not be read to its end" + (reason.map { ": \($0)" } ?? ""))
                )
            case .disconnected:
                log.appendRefusal(failed(.failure, "The connection ended before the content did"))
            }
        }

        private func failed(_ status: AuditStatus, _ message: String?) -> AuditEvent {
            var event = event
            event.status = status
            event.details["http_status"] = .number(httpStatus)
            event.details["route"] = .text(route)
            event.message = message
            return event
        }
    }
}
