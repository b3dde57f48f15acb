// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore

/// What a node gives its VMs, and what of it is taken.
package struct HostCapacity: Sendable {
    package struct Limits: Equatable, Sendable {
        /// VMs that may live at once.
        package var vms: Int
        /// MiB for all VMs together, their QEMUs' own needs included.
        package var memoryMB: Int
        /// Virtual processors of all VMs together.
        package var vcpus: Int
        /// VMs that may be on their way at once; more are refused for now.
        package var starting: Int

        package init(vms: Int, memoryMB: Int, vcpus: Int, starting: Int) {
            self.vms = vms
            self.memoryMB = memoryMB
            self.vcpus = vcpus
            self.starting = starting
        }

        /// What this machine can bear: four fifths of the memory that the server may use, and so many virtual processors for each
        /// real one.
        package static func ofThisMachine(cpuOvercommit: Int) -> Limits {
            let processors = ProcessInfo.processInfo.activeProcessorCount
            let physical = Int(ProcessInfo.processInfo.physicalMemory)
            let memory = (min(physical, HostCgroups.ownMemoryLimit ?? physical) >> 20) * 4 / 5
            return Limits(vms: 1_000, memoryMB: memory, vcpus: processors * cpuOvercommit, starting: 64)
        }
    }

    /// MiB that a VM's QEMU takes beside the guest's memory: code cache, stacks, buffers.
    package static let overheadMB = 64

    package let limits: Limits
    package private(set) var vms = 0
    package private(set) var memoryMB = 0
    package private(set) var vcpus = 0
    package private(set) var starting = 0

    package init(limits: Limits) {
        self.limits = limits
    }

    /// Takes room for a VM that is about to start.
    ///
    /// - Throws: `MicroVMError.full` with what is used up; nothing was taken then.
    package mutating func admit(_ shape: VMShape) throws(MicroVMError) {
        guard vms < limits.vms else { throw .full(reason: "All \(limits.vms) microVMs of this node are in use") }
        let memory = shape.memoryMB + Self.overheadMB
        guard memoryMB + memory <= limits.memoryMB else {
            throw .full(
                reason:
                    "This node has \(limits.memoryMB - memoryMB) of \(limits.memoryMB) MiB of memory left for microVMs, "
                    + "and this one needs \(memory)"
            )
        }
        guard vcpus + shape.vcpuCount <= limits.vcpus else {
            throw .full(reason: "\(vcpus) of this node's \(limits.vcpus) virtual processors are in use")
        }
        guard starting < limits.starting else {
            throw .full(reason: "\(starting) microVMs are being started already")
        }
        vms += 1
        memoryMB += memory
        vcpus += shape.vcpuCount
        starting += 1
    }

    /// A VM runs, or has given up to start.
    package mutating func started() {
        starting -= 1
    }

    /// A VM is gone.
    package mutating func release(_ shape: VMShape) {
        vms -= 1
        memoryMB -= shape.memoryMB + Self.overheadMB
        vcpus -= shape.vcpuCount
    }
}
