// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletAccounts
import SwiftletCore

/// Makes audit events of requests: the one place that does.
struct AuditMiddleware: Sendable {
    let log: AuditBuffer
    let addresses: ClientAddressResolver

    /// Audits a request that has its answer. Returns at once, but for what must be written down before the answer.
    func audit(_ trail: RequestAuditContext, status code: Int, _ request: Request, _ context: AppContext) async {
        let facts = trail.facts
        guard let (type, status) = facts.outcome(code) else { return }
        let actor = facts.user.map { AuditEvent.Actor.user($0) } ?? .anonymous
        var event = AuditEvent(type, status, by: actor, owner: facts.user ?? facts.owner)
        event.credential = facts.credential
        event.address = addresses.clientAddress(of: request, context).name
        event.requestID = trail.requestID
        event.session = facts.session
        event.vmID = facts.vmID
        if type == facts.type { event.resourceID = facts.resource }
        event.details = facts.details
        if status == .success {
            guard type.isWrittenAtOnce else { return log.append(event) }
            await log.record(event)
        } else {
            event.details["http_status"] = .number(code)
            event.details["route"] = .text("\(request.method) \(context.endpointPath ?? "none")")
            event.message = facts.message
            // Refusals come in floods: only the first of its kind can cost a write.
            if log.appendRefusal(event), type.isWrittenAtOnce { await log.flush() }
        }
    }
}
