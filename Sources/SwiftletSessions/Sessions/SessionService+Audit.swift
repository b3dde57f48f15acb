// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import SwiftletAccounts
import SwiftletCore
import SwiftletStore
import SwiftletVM

/// Audit events that belong to no route.
extension SessionService {
    /// Fields of the log for whatever is done for a session.
    static func metadata(of record: SessionRecord) -> Logger.Metadata {
        ["session.id": "\(record.id)", "user.id": "\(record.owner)"]
    }

    /// Audits the creation or the deletion of a session by something else than its own route.
    nonisolated func auditSession(
        _ type: AuditEventType,
        by actor: AuditEvent.Actor,
        _ record: SessionRecord,
        because reason: String
    ) {
        var event = AuditEvent(type, by: actor, owner: record.owner)
        event.session = record.id
        event.requestID = Self.currentRequest
        event.details = ["reason": .text(reason)]
        audit.append(event)
    }

    /// The id of the request that is the cause of what is done now.
    private static var currentRequest: String? { Logger.current[metadataKey: "request.id"].map { "\($0)" } }

    func auditStart(of vm: any VirtualMachine, record: SessionRecord) {
        var event = AuditEvent(.vmStarted, by: .system, owner: record.owner)
        event.session = record.id
        event.vmID = vm.id
        event.requestID = Self.currentRequest
        event.details = [
            "memory_mb": .number(record.memoryMB), "vcpu_count": .number(record.vcpuCount),
            "vm_lifetime_seconds": .number(record.vmLifetimeSeconds),
        ]
        audit.append(event)
    }

    func auditEnd(of vm: any VirtualMachine, record: SessionRecord, reason: String) {
        var event = AuditEvent(.vmTerminated, by: .system, owner: record.owner)
        event.session = record.id
        event.vmID = vm.id
        let seconds = max(0, Int((time.now - vm.started).seconds))
        event.details = ["reason": .text(reason), "uptime_seconds": .number(seconds)]
        if let origin = vm.restore?.origin { event.details["origin"] = .text(origin) }
        audit.append(event)
    }

    func auditPurge(of session: SessionID, owner: UserID) {
        var event = AuditEvent(.sessionDeleted, by: .system, owner: owner)
        event.session = session
        event.details = ["reason": .text("Its retention time of \(configuration.retentionDays) days ended")]
        audit.append(event)
    }

    /// Records the end of the VMs that the last server of this database left. To be called once, before ``run()`` and before any
    /// request comes.
    package func recover() async throws {
        let reason = "The server restarted"
        for (id, session, owner) in try await store.endAllVMs(at: time.date, reason: reason) {
            var event = AuditEvent(.vmTerminated, by: .system, owner: owner)
            event.session = session
            event.vmID = id
            event.details = ["reason": .text(reason)]
            audit.append(event)
        }
    }
}
