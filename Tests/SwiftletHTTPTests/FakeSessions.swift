// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore
import SwiftletMetrics
import SwiftletSessions

/// Sessions without VMs: answers what a test wants.
struct FakeSessions: SessionAPI {
    var failure: SessionError?
    /// Of the sessions whose VM lives.
    var metadata: [String] = []

    func createSession(owner: UserID, options: SessionOptions) async throws -> SessionRecord {
        if let failure { throw failure }
        return SessionRecord(
            id: .random(),
            owner: owner,
            createdAt: Date(timeIntervalSince1970: 0.5),
            vmLifetimeSeconds: options.vmLifetimeSeconds ?? 300,
            memoryMB: options.memoryMB ?? 512,
            vcpuCount: options.vcpuCount ?? 2,
            environment: options.environment ?? [:],
            metadataJSON: options.metadataJSON ?? "{}"
        )
    }

    func status(of id: SessionID, owner: UserID) async throws -> SessionStatus {
        if let failure { throw failure }
        let record = try await createSession(owner: owner, options: SessionOptions())
        return SessionStatus(record: record, vm: nil, uptime: nil, expiresIn: nil)
    }

    func kill(_ id: SessionID, owner: UserID) async throws -> String {
        if let failure { throw failure }
        return "vm-x"
    }

    func sandboxes(owner: UserID) async throws -> [Sandbox] {
        if let failure { throw failure }
        let start = Date(timeIntervalSince1970: 0.5)
        let vm = SessionVM(id: "vm-x", startedAt: start, expiresAt: start.addingTimeInterval(300))
        var found: [Sandbox] = []
        for text in metadata {
            let record = try await createSession(owner: owner, options: SessionOptions(metadataJSON: text))
            found.append(Sandbox(record: record, vm: vm, state: .active, template: nil))
        }
        return found
    }

    func update(_ id: SessionID, owner: UserID, _ change: SessionChange) async throws -> SessionStatus {
        if let failure { throw failure }
        let options = SessionOptions(vmLifetimeSeconds: change.vmLifetimeSeconds, metadataJSON: change.metadataJSON)
        let record = try await createSession(owner: owner, options: options)
        return SessionStatus(record: record, vm: nil, uptime: nil, expiresIn: nil)
    }

    func delete(_ id: SessionID, owner: UserID) async throws {
        if let failure { throw failure }
    }

    func metrics() async -> [MetricFamily] {
        [MetricFamily("swiftlet_vms", .gauge, "VMs.", [.init(["state": "a\"b\\c\nd"], 2)])]
    }
}
