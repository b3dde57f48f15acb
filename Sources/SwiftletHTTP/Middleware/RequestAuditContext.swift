// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletAccounts
import SwiftletCore
import Synchronization

/// What becomes known of a request on its way: for its line in the log, and for its audit event.
final class RequestAuditContext: Sendable {
    struct Facts: Sendable {
        /// Who it is, proven.
        var user: UserID?
        /// By what; see ``AuditEvent/credential``.
        var credential: String?
        /// Whom it concerns when nothing is proven.
        var owner: UserID?
        /// What the route does.
        var type: AuditEventType?
        var session: SessionID?
        var vmID: String?
        var resource: String?
        var details: [String: AuditEvent.Detail] = [:]
        /// Why it was refused, in the words of the answer.
        var message: String?
        var isCredentialRefused = false
    }

    @TaskLocal static var current: RequestAuditContext?

    let requestID: String
    private let state = Mutex(Facts())

    init(requestID: String) {
        self.requestID = requestID
    }

    var facts: Facts { state.withLock { $0 } }

    /// Changes what is known of the current request.
    static func record(_ change: (inout Facts) -> Void) {
        current?.state.withLock { change(&$0) }
    }
}

extension RequestAuditContext.Facts {
    mutating func note(_ principal: Principal) {
        user = principal.user
        credential =
            switch principal.credential {
            case .key(let id): "key:\(id)"
            case .token: "token"
            }
    }

    /// Takes what the route and the path say. Nothing else that anybody writes into a path is kept.
    mutating func note(_ route: Route, id: String?) {
        type = route.audit
        guard let id else { return }
        if route.path.hasPrefix("/v1/sessions/") {
            session = SessionID(rawValue: id)
        } else if route.path.hasPrefix("/v1/executions/") {
            resource = ExecutionID(rawValue: id)?.rawValue
        } else if route.path.hasPrefix("/v1/api-keys/") {
            resource = Int64(id).map(String.init)
        }
    }

    /// What is to be audited of an answer; nil when nothing is.
    func outcome(_ code: Int) -> (type: AuditEventType, status: AuditStatus)? {
        if isCredentialRefused { return (.credentialRefused, .denied) }
        if code == 429 { return (.rateLimitRefused, .denied) }
        // Who says nothing of who they are was refused nothing.
        guard let type, user != nil || type.group == "auth" else { return nil }
        switch code {
        case ..<400: return (type, .success)
        case 403: return (type, .denied)
        case ..<500: return (type, .failure)
        default: return (type, .error)
        }
    }
}

/// Keeps keys out of what is written down: a caller may have put one where something else belongs.
enum Redaction {
    private static let prefix = "instavm_sk_"

    static func withoutKeys(_ text: String) -> String {
        guard text.contains(prefix) else { return text }
        let parts = text.components(separatedBy: prefix)
        let rest = parts.dropFirst().map { part in
            prefix + "..." + part.drop { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" }
        }
        return (parts.prefix(1) + rest).joined()
    }
}
