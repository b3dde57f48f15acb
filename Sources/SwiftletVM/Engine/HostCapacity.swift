// SPDX-License-Identifier: Apache-2.0

/// What a node promises its VMs, and what of it is taken. Processors are shared and limit nothing.
package struct HostCapacity: Sendable {
    package struct Limits: Equatable, Sendable {
        /// VMs that may live at once.
        package var vms: Int
        package var memory: MemoryPolicy.Limits
        /// VMs that may be starting at once; more are refused for now.
        package var starting: Int

        package init(vms: Int = 1_000, memory: MemoryPolicy.Limits, starting: Int = 64) {
            self.vms = vms
            self.memory = memory
            self.starting = starting
        }

        /// MiB that may be promised to all VMs together, their QEMUs' own needs included.
        package var memoryMB: Int { memory.promised }
    }

    /// MiB that a VM's QEMU takes beside the guest's memory: code cache, stacks, buffers.
    package static let overheadMB = 64

    package let limits: Limits
    package private(set) var vms = 0
    package private(set) var memoryMB = 0
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
                    + "and this one needs \(memory) (settings memoryBudgetMb, memoryOvercommit)"
            )
        }
        guard starting < limits.starting else {
            throw .full(reason: "\(starting) microVMs are being started already")
        }
        vms += 1
        memoryMB += memory
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
    }
}
