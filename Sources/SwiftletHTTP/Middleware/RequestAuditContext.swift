// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletAccounts
import SwiftletCore
import Synchronization

/// Facts about a request that its handlers record: for its line in the log, and for its audit event.
final class RequestAuditContext: Sendable {
    struct Facts: Sendable {
        /// The authenticated user.
        var user: UserID?
        /// The credential that authenticated the user; see ``AuditEvent/credential``.
        var credential: String?
        /// The user that the event belongs to when none is authenticated.
        var owner: UserID?
        /// The event type of the route.
        var type: AuditEventType?
        var session: SessionID?
        var vmID: String?
        var resource: String?
        var details: [String: AuditEvent.Detail] = [:]
        /// The reason of a refusal, as in the response.
        var message: String?
        var isCredentialRefused = false
    }

    @TaskLocal static var current: RequestAuditContext?

    let requestID: String
    private let state = Mutex(Facts())
    private let weakStream = Mutex(WeakStream())

    init(requestID: String) {
        self.requestID = requestID
    }

    var facts: Facts { state.withLock { $0 } }

    /// The end of the response's body, if that is streamed. The body alone holds it: a body that a middleware replaces, by an error or
    /// for HEAD, takes it along.
    var stream: StreamCompletion? {
        get { weakStream.withLock { $0.value } }
        set { weakStream.withLock { $0.value = newValue } }
    }

    private struct WeakStream: Sendable {
        weak var value: StreamCompletion?
    }

    /// Changes the facts of the current request.
    static func record(_ change: (inout Facts) -> Void) {
        current?.state.withLock { change(&$0) }
    }
}

extension RequestAuditContext.Facts {
    /// Sets the user and the credential.
    mutating func set(_ principal: Principal) {
        user = principal.user
        credential =
            switch principal.credential {
            case .key(let id): "key:\(id)"
            case .token: "token"
            }
    }

    /// Sets the event type of the route and the resource of the path. An id that is malformed is not recorded.
    mutating func set(_ route: Route, id: String?) {
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

    /// The event type and status of a response with this code; nil when it is not audited.
    func outcome(_ code: Int) -> (type: AuditEventType, status: AuditStatus)? {
        if isCredentialRefused { return (.credentialRefused, .denied) }
        if code == 429 { return (.rateLimitRefused, .denied) }
        // A request without a credential has no user that an event could belong to.
        guard let type, user != nil || type.group == "auth" else { return nil }
        switch code {
        case ..<400: return (type, .success)
        case 403: return (type, .denied)
        case ..<500: return (type, .failure)
        default: return (type, .error)
        }
    }
}

/// Removes API keys from texts that are logged or audited: a caller may have put one into another field.
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
