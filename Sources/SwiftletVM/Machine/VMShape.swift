// SPDX-License-Identifier: Apache-2.0

/// What a VM is given of the machine.
package struct VMShape: Hashable, Sendable, Codable, CustomStringConvertible {
    /// Memory in MiB, 128...8192.
    package var memoryMB: Int
    /// Virtual processors; 1, 2, 4, 6 or 8.
    package var vcpuCount: Int

    package init(memoryMB: Int, vcpuCount: Int) {
        self.memoryMB = memoryMB
        self.vcpuCount = vcpuCount
    }

    package var description: String { "\(vcpuCount) vCPU, \(memoryMB) MiB" }

    /// A name for files: `512m2`.
    package var tag: String { "\(memoryMB)m\(vcpuCount)" }
}

/// How guest code is run.
package enum Accelerator: String, Sendable, Codable, CaseIterable {
    /// The processor's own virtualisation, through /dev/kvm.
    case kvm
    /// QEMU's software emulation; works everywhere.
    case tcg
}
