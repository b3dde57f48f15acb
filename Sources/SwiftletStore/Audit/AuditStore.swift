// SPDX-License-Identifier: Apache-2.0

package import Foundation
import GRDB
package import SwiftletCore

/// The audit events. They are appended, and go when their time is over; none is ever changed.
package struct AuditStore: Sendable {
    /// Which events a list is to have.
    package struct Filter: Sendable {
        /// The user that the events belong to; nil for all, those without a user included.
        package var owner: UserID?
        package var group: String?
        package var type: AuditEventType?
        package var status: AuditStatus?
        package var session: SessionID?
        package var vmID: String?
        package var since: Date?
        /// Only those that were written before this one.
        package var before: AuditEventID?
        /// Only those that were written after this one; then the oldest come first.
        package var after: AuditEventID?
        package var limit: Int

        package init(owner: UserID?, limit: Int = 50) {
            self.owner = owner
            self.limit = limit
        }
    }

    private static let columns = """
        id, created_at, event_group, event_type, status, actor_type, actor_id, owner_id, credential, address, \
        request_id, session_id, vm_id, resource_id, details, message
        """
    private let database: Database

    package init(_ database: Database) {
        self.database = database
    }

    /// Writes events down, all or none.
    package func append(_ events: [AuditEvent]) async throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let rows = try events.map { event in
            try Self.arguments(of: event, details: String(decoding: encoder.encode(event.details), as: UTF8.self))
        }
        let parameters = (1...16).map { "$\($0)" }.joined(separator: ", ")
        let sql = "INSERT INTO audit_events (\(Self.columns)) VALUES (\(parameters))"
        try await database.writer.write { database in
            let statement = try database.cachedStatement(sql: sql)
            for row in rows { try statement.execute(arguments: row) }
        }
    }

    private static func arguments(of event: AuditEvent, details: String) -> StatementArguments {
        [
            event.id.rawValue, event.createdAt.microseconds, event.type.group, event.type.rawValue,
            event.status.rawValue, event.actor.type, event.actor.id?.rawValue, event.owner?.rawValue, event.credential,
            event.address, event.requestID, event.session?.rawValue, event.vmID, event.resourceID, details,
            event.message,
        ]
    }

    /// Events, the newest first.
    package func list(_ filter: Filter) async throws -> [AuditEvent] {
        var conditions: [String] = []
        var values: [(any DatabaseValueConvertible)?] = []
        func add(_ value: (any DatabaseValueConvertible)?, _ condition: (String) -> String) {
            guard let value else { return }
            values.append(value)
            conditions.append(condition("$\(values.count)"))
        }
        // A session and a VM have fewer events than their owner: the plus keeps the owner's indexes away.
        let isNarrow = filter.session != nil || filter.vmID != nil
        add(filter.owner?.rawValue) { isNarrow ? "+owner_id = \($0)" : "owner_id = \($0)" }
        add(filter.group) { "event_group = \($0)" }
        add(filter.type?.rawValue) { "event_type = \($0)" }
        // The same condition as of the partial index of refusals, so that the query uses it.
        add(filter.status?.rawValue) {
            filter.status == .success ? "status = \($0)" : "status = \($0) AND status <> 'success'"
        }
        add(filter.session?.rawValue) { "session_id = \($0)" }
        add(filter.vmID) { "vm_id = \($0)" }
        add(filter.since?.microseconds) { "created_at >= \($0)" }
        add(filter.before?.rawValue) { "number < (SELECT number FROM audit_events WHERE id = \($0))" }
        add(filter.after?.rawValue) { "number > (SELECT number FROM audit_events WHERE id = \($0))" }
        let condition = conditions.isEmpty ? "" : "WHERE " + conditions.joined(separator: " AND ")
        let order = filter.after == nil ? "DESC" : "ASC"
        let sql = "SELECT * FROM audit_events \(condition) ORDER BY number \(order) LIMIT \(filter.limit)"
        let arguments = StatementArguments(values)
        return try await database.writer.read { database in
            try Row.fetchAll(database, sql: sql, arguments: arguments).map(Self.event)
        }
    }

    /// An event; nil for an unknown one and for one that does not concern this owner.
    package func event(_ id: AuditEventID, owner: UserID) async throws -> AuditEvent? {
        try await database.writer.read { database in
            let sql = "SELECT * FROM audit_events WHERE id = $1 AND owner_id = $2"
            return try Row.fetchOne(database, sql: sql, arguments: [id.rawValue, owner.rawValue]).map(Self.event)
        }
    }

    /// Forgets events from before a moment, and frequent ones that are not among the newest.
    ///
    /// - Parameters:
    ///   - keeping: how many of the newest events may have frequent ones among them.
    ///   - limit: how many rows to delete at once, so that other writers do not wait long.
    /// - Returns: whether there may be more.
    package func purge(before moment: Date, keeping: Int, limit: Int) async throws -> Bool {
        try await database.writer.write { database in
            try database.execute(
                sql: """
                    DELETE FROM audit_events WHERE number IN (
                        SELECT number FROM audit_events WHERE created_at < $1 LIMIT $2)
                    """,
                arguments: [moment.microseconds, limit]
            )
            let old = database.changesCount
            let groups = AuditEventType.frequentGroups.map { "'\($0)'" }.joined(separator: ", ")
            try database.execute(
                sql: """
                    DELETE FROM audit_events WHERE number IN (
                        SELECT number FROM audit_events
                        WHERE number <= (SELECT MAX(number) FROM audit_events) - $1 AND event_group IN (\(groups))
                        ORDER BY number LIMIT $2)
                    """,
                arguments: [keeping, limit]
            )
            return old == limit || database.changesCount == limit
        }
    }

    private static func event(_ row: Row) throws -> AuditEvent {
        guard let id = AuditEventID(rawValue: row["id"]), let type = AuditEventType(rawValue: row["event_type"]),
            let status = AuditStatus(rawValue: row["status"])
        else { throw StoreError("The database holds an audit event that this server does not understand") }
        let moment = Date(microseconds: row["created_at"])
        var event = AuditEvent(stored: id, type, status, by: actor(row), at: moment)
        event.owner = (row["owner_id"] as Int64?).map { UserID(rawValue: $0) }
        event.credential = row["credential"]
        event.address = row["address"]
        event.requestID = row["request_id"]
        event.session = (row["session_id"] as String?).flatMap { SessionID(rawValue: $0) }
        event.vmID = row["vm_id"]
        event.resourceID = row["resource_id"]
        let details: String = row["details"]
        event.details = try JSONDecoder().decode([String: AuditEvent.Detail].self, from: Data(details.utf8))
        event.message = row["message"]
        return event
    }

    private static func actor(_ row: Row) -> AuditEvent.Actor {
        if let id: Int64 = row["actor_id"] { return .user(UserID(rawValue: id)) }
        return switch row["actor_type"] as String {
        case "operator": .operator
        case "system": .system
        default: .anonymous
        }
    }
}
