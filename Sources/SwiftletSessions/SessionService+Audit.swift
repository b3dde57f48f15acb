// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import SwiftletStore
import SwiftletVM

/// What is written down of VMs beside their rows: nobody asked for it, so the system did it.
extension SessionService {
    /// Fields of the log for whatever is done for a session.
    static func metadata(of record: SessionRecord) -> Logger.Metadata {
        ["session.id": "\(record.id)", "user.id": "\(record.owner)"]
    }

    /// Audits what became of a session that no route was asked for.
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
        audit.note(event)
    }

    /// The id of the request that is the cause of what is done now.
    private static var currentRequest: String? { Logger.current[metadataKey: "request.id"].map { "\($0)" } }

    func auditStart(of vm: MicroVM, record: SessionRecord) {
        var event = AuditEvent(.vmStarted, by: .system, owner: record.owner)
        event.session = record.id
        event.vmID = vm.id
        event.requestID = Self.currentRequest
        event.details = [
            "memory_mb": .number(record.memoryMB), "vcpu_count": .number(record.vcpuCount),
            "vm_lifetime_seconds": .number(record.vmLifetimeSeconds),
        ]
        audit.note(event)
    }

    func auditEnd(of vm: MicroVM, record: SessionRecord, reason: String) {
        var event = AuditEvent(.vmTerminated, by: .system, owner: record.owner)
        event.session = record.id
        event.vmID = vm.id
        let seconds = max(0, Int(Date().timeIntervalSince(vm.startedAt)))
        event.details = ["reason": .text(reason), "uptime_seconds": .number(seconds)]
        if let origin = vm.restore?.origin { event.details["origin"] = .text(origin) }
        audit.note(event)
    }

    /// Writes down the end of the VMs that the last server of this database left.
    func endForgottenVMs() async throws {
        let reason = "The server restarted"
        for (id, session, owner) in try await store.endAllVMs(at: Date(), reason: reason) {
            var event = AuditEvent(.vmTerminated, by: .system, owner: owner)
            event.session = session
            event.vmID = id
            event.details = ["reason": .text(reason)]
            audit.note(event)
        }
    }
}
