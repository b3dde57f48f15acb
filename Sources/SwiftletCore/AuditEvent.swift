// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// Who did what, from where, and how it went. It holds no secret, no code and no content.
package struct AuditEvent: Equatable, Sendable {
    package enum Actor: Equatable, Sendable {
        case user(UserID)
        /// Nobody knows who.
        case anonymous
        /// Somebody at the server's own command line.
        case `operator`
        case system

        package var type: String {
            switch self {
            case .user: "user"
            case .anonymous: "anonymous"
            case .operator: "operator"
            case .system: "system"
            }
        }

        package var id: UserID? {
            if case .user(let id) = self { id } else { nil }
        }
    }

    /// A value of an event's details.
    package enum Detail: Equatable, Sendable {
        case text(String)
        case number(Int)
    }

    /// Bytes of any text of an event: who asks for much does not fill the disk.
    private static let maximumText = 256
    private static let maximumDetails = 16

    package private(set) var id = AuditEventID.random()
    package var createdAt: Date
    package var type: AuditEventType
    package var status: AuditStatus
    package var actor: Actor
    /// Whom it concerns, and who may read it; nil for the operator alone.
    package var owner: UserID?
    /// What the actor proved it with: a key's number, `token` or `password`.
    package var credential: String?
    /// Where the request came from.
    package var address: String?
    package var requestID: String?
    package var session: SessionID?
    package var vmID: String?
    /// Which of its type's resources.
    package var resourceID: String? { didSet { resourceID = resourceID.map(Self.cut) } }
    package var details: [String: Detail] = [:] { didSet { details = Self.bounded(details) } }
    /// Why it did not succeed.
    package var message: String? { didSet { message = message.map(Self.cut) } }

    package init(
        _ type: AuditEventType,
        _ status: AuditStatus = .success,
        by actor: Actor,
        owner: UserID? = nil,
        at moment: Date = Date()
    ) {
        createdAt = moment
        self.type = type
        self.status = status
        self.actor = actor
        self.owner = owner
    }

    /// The same at another moment, for all those that were only counted since.
    package func repeated(_ count: Int, at moment: Date) -> AuditEvent {
        var event = self
        event.id = .random()
        event.createdAt = moment
        event.details["repeated"] = .number(count)
        return event
    }

    /// An event as it was stored.
    package init(
        stored id: AuditEventID,
        _ type: AuditEventType,
        _ status: AuditStatus,
        by actor: Actor,
        at moment: Date
    ) {
        self.init(type, status, by: actor, at: moment)
        self.id = id
    }

    private static func cut(_ text: String) -> String {
        guard text.utf8.count > maximumText else { return text }
        var end = text.utf8.index(text.startIndex, offsetBy: maximumText)
        while end.samePosition(in: text.unicodeScalars) == nil { end = text.utf8.index(before: end) }
        return String(text[..<end])
    }

    private static func bounded(_ details: [String: Detail]) -> [String: Detail] {
        let kept = details.sorted { $0.key < $1.key }.prefix(maximumDetails).map { name, value in
            if case .text(let text) = value { (name, Detail.text(cut(text))) } else { (name, value) }
        }
        return Dictionary(uniqueKeysWithValues: kept)
    }
}

extension AuditEvent {
    /// The resource that the event names, or is all about.
    package var shownResource: String? {
        switch type.resourceType {
        case "session": resourceID ?? session?.rawValue
        case "vm": resourceID ?? vmID
        case "user": resourceID ?? owner?.description
        default: resourceID
        }
    }
}

extension AuditEvent.Detail: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let number = try? container.decode(Int.self) {
            self = .number(number)
        } else {
            self = .text(try container.decode(String.self))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .text(let text): try container.encode(text)
        case .number(let number): try container.encode(number)
        }
    }
}
