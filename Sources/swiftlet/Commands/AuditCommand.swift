// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletCore
import SwiftletStore

struct AuditCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "Shows who did what: log-ins, keys, users, sessions, microVMs, executions and files, of all users.",
        discussion: """
            Reads the server's database, whether it runs or not. The oldest event comes first.

              swiftlet audit --since 1h --type auth.refused
              swiftlet audit --user ada@example.org --follow --json
            """
    )

    /// Events that one question to the database may bring.
    private static let page = 500

    @OptionGroup var common: CommonOptions

    @Option(help: "Only what concerns the user with this e-mail address.")
    var user: String?

    @Option(help: "A type, such as session.created, or a group, such as session.")
    var type: String?

    @Option(help: "success, failure, error or denied.")
    var status: String?

    @Option(help: "Only what is younger: 30s, 10m, 2h, 7d, or a moment such as 2027-01-31T12:00:00Z.")
    var since: String?

    @Option(help: "How many of the newest events are shown at first, 1 to 500. Default: 50")
    var limit = 50

    @Flag(help: "Go on with what comes, until Ctrl-C.")
    var follow = false

    @Flag(help: "One JSON object a line.")
    var json = false

    func validate() throws {
        guard (1...Self.page).contains(limit) else { throw ValidationError("--limit must be from 1 to \(Self.page)") }
        _ = try Self.moment(since)
    }

    func run() async throws {
        let database = try await common.openDatabase()
        let store = AuditStore(database)
        var filter = AuditStore.Filter(owner: nil, limit: limit)
        if let user { filter.owner = try await UserStore(database).existing(user).id }
        if let type { try Self.choose(type, in: &filter) }
        filter.status = try status.map(Self.status)
        filter.since = try Self.moment(since)
        var emails: [UserID: String] = [:]
        var last = try await show(store.list(filter).reversed(), &emails, UserStore(database))
        guard follow else { return }
        filter.limit = Self.page
        while true {
            filter.after = last
            // Nothing was there: all that comes is new.
            let found = try await store.list(filter)
            last = try await show(last == nil ? found.reversed() : found, &emails, UserStore(database)) ?? last
            if found.count < Self.page { try await Task.sleep(for: .seconds(1)) }
        }
    }

    /// - Returns: the last one.
    private func show(
        _ events: [AuditEvent],
        _ emails: inout [UserID: String],
        _ users: UserStore
    ) async throws -> AuditEventID? {
        if let user = events.compactMap(\.owner).first(where: { emails[$0] == nil }) {
            emails = try await users.list().reduce(into: [user: "user \(user)"]) { $0[$1.id] = $1.email }
        }
        for event in events {
            let email = event.owner.map { emails[$0] ?? "user \($0)" }
            print(try json ? AuditLine.json(event, email: email) : AuditLine.text(event, email: email))
        }
        fflush(nil)
        return events.last?.id
    }

    private static func choose(_ text: String, in filter: inout AuditStore.Filter) throws {
        if let type = AuditEventType(rawValue: text) {
            filter.type = type
        } else if AuditEventType.catalog.contains(where: { $0.group == text }) {
            filter.group = text
        } else {
            let known = AuditEventType.allCases.map(\.rawValue).sorted().joined(separator: ", ")
            throw ValidationError("There is no event type or group '\(text)'; there are: \(known)")
        }
    }

    private static func status(_ text: String) throws -> AuditStatus {
        guard let status = AuditStatus(rawValue: text) else {
            let known = AuditStatus.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--status is '\(text)'; it must be one of: \(known)")
        }
        return status
    }

    private static func moment(_ text: String?) throws -> Date? {
        guard let text else { return nil }
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3_600, "d": 86_400]
        if let last = text.last, let unit = units[last], let number = Int(text.dropLast()), number >= 0 {
            return Date().addingTimeInterval(-Double(number) * unit)
        }
        guard let moment = try? Date(text, strategy: .iso8601) else {
            throw ValidationError("--since is '\(text)'; it must be like 30s, 10m, 2h, 7d or 2027-01-31T12:00:00Z")
        }
        return moment
    }
}

/// An audit event for people, and for programs.
enum AuditLine {
    private struct Fields: Encodable {
        let id: String
        let created_at: String
        let event_type: String
        let status: String
        let actor_type: String
        let actor_id: String?
        let user: String?
        let credential: String?
        let address: String?
        let request_id: String?
        let session_id: String?
        let vm_id: String?
        let resource_type: String?
        let resource_id: String?
        let event_payload: [String: AuditEvent.Detail]
        let error_message: String?
    }

    private static let style = Date.ISO8601FormatStyle(includingFractionalSeconds: true)

    static func json(_ event: AuditEvent, email: String?) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let fields = Fields(
            id: event.id.rawValue,
            created_at: event.createdAt.formatted(style),
            event_type: event.type.rawValue,
            status: event.status.rawValue,
            actor_type: event.actor.type,
            actor_id: event.actor.id?.description,
            user: email,
            credential: event.credential,
            address: event.address,
            request_id: event.requestID,
            session_id: event.session?.rawValue,
            vm_id: event.vmID,
            resource_type: event.type.resourceType,
            resource_id: event.shownResource,
            event_payload: event.details,
            error_message: event.message
        )
        return String(decoding: try encoder.encode(fields), as: UTF8.self)
    }

    static func text(_ event: AuditEvent, email: String?) -> String {
        var parts = [
            event.createdAt.formatted(style), padded(event.status.rawValue, 7), padded(event.type.rawValue, 20),
            padded(event.actor.id == nil ? event.actor.type : email ?? "-", 24),
        ]
        if event.actor.id == nil, let email { parts.append("user=\(email)") }
        let named: [(String, String?)] = [
            ("from", event.address), ("by", event.credential), ("session", event.session?.rawValue), ("vm", event.vmID),
            (event.type.resourceType ?? "resource", event.resourceID),
        ]
        parts += named.compactMap { name, value in value.map { "\(name)=\(plain($0))" } }
        parts += event.details.sorted { $0.key < $1.key }.map { name, value in
            switch value {
            case .text(let text): "\(name)=\(plain(text))"
            case .number(let number): "\(name)=\(number)"
            }
        }
        if let message = event.message { parts.append("(\(plain(message)))") }
        return parts.joined(separator: "  ")
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    /// Nothing in it moves a terminal's cursor.
    private static func plain(_ text: String) -> String {
        String(
            String.UnicodeScalarView(text.unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : $0 })
        )
    }
}
