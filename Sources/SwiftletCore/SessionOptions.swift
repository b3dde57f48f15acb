// SPDX-License-Identifier: Apache-2.0

/// What a new session is to be like.
package struct SessionOptions: Sendable {
    /// Seconds; nil takes the server's default.
    package var vmLifetimeSeconds: Int?
    package var memoryMB: Int?
    package var vcpuCount: Int?
    /// Given, the VM is spawned at once.
    package var environment: [String: String]?
    /// A JSON object's text.
    package var metadataJSON: String?

    package init(
        vmLifetimeSeconds: Int? = nil,
        memoryMB: Int? = nil,
        vcpuCount: Int? = nil,
        environment: [String: String]? = nil,
        metadataJSON: String? = nil
    ) {
        self.vmLifetimeSeconds = vmLifetimeSeconds
        self.memoryMB = memoryMB
        self.vcpuCount = vcpuCount
        self.environment = environment
        self.metadataJSON = metadataJSON
    }
}
