// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletMetrics
import SwiftletSessions
import SwiftletStore

/// Sessions without VMs: answers what a test wants.
struct FakeSessions: SessionAPI {
    var failure: SessionError?

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

    func metrics() async -> [MetricFamily] {
        [MetricFamily("swiftlet_vms", .gauge, "VMs.", [.init(["state": "a\"b\\c\nd"], 2)])]
    }
}
