// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// A session as the database keeps it.
package struct SessionRecord: Equatable, Sendable {
    package var id: SessionID
    package var owner: UserID
    package var createdAt: Date
    /// Seconds that a VM of this session lives, counted from its spawn; 20...86400.
    package var vmLifetimeSeconds: Int
    /// Memory of the session's VMs in MiB; 128...8192.
    package var memoryMB: Int
    /// Virtual processors of the session's VMs; 1, 2, 4, 6 or 8.
    package var vcpuCount: Int
    package var environment: [String: String]
    /// Any JSON object, kept as its text.
    package var metadataJSON: String
    /// The last VM that was assigned, dead or alive; nil before the first.
    package var vm: SessionVM?

    package init(
        id: SessionID,
        owner: UserID,
        createdAt: Date,
        vmLifetimeSeconds: Int,
        memoryMB: Int,
        vcpuCount: Int,
        environment: [String: String] = [:],
        metadataJSON: String = "{}",
        vm: SessionVM? = nil
    ) {
        self.id = id
        self.owner = owner
        self.createdAt = createdAt
        self.vmLifetimeSeconds = vmLifetimeSeconds
        self.memoryMB = memoryMB
        self.vcpuCount = vcpuCount
        self.environment = environment
        self.metadataJSON = metadataJSON
        self.vm = vm
    }
}

/// The VM that a session was last given.
package struct SessionVM: Equatable, Sendable {
    /// `vm-...`, never shaped like a UUID.
    package var id: String
    package var startedAt: Date
    package var expiresAt: Date
    /// When it ended; nil while it lives.
    package var endedAt: Date?
    /// Why it ended, in words for the session's owner.
    package var endReason: String?

    package init(id: String, startedAt: Date, expiresAt: Date, endedAt: Date? = nil, endReason: String? = nil) {
        self.id = id
        self.startedAt = startedAt
        self.expiresAt = expiresAt
        self.endedAt = endedAt
        self.endReason = endReason
    }
}

/// What an owner changes about a session that exists.
package struct SessionChange: Equatable, Sendable {
    /// Seconds that its VMs live; never less than before.
    package var vmLifetimeSeconds: Int?
    /// A JSON object's text, in place of the one before.
    package var metadataJSON: String?

    package init(vmLifetimeSeconds: Int? = nil, metadataJSON: String? = nil) {
        self.vmLifetimeSeconds = vmLifetimeSeconds
        self.metadataJSON = metadataJSON
    }
}
