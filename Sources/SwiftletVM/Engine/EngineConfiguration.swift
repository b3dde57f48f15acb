// SPDX-License-Identifier: Apache-2.0

import SwiftletCore

extension MicroVMEngine {
    /// What an engine is made of.
    package struct Configuration: Sendable {
        /// The path of `qemu-system-x86_64`.
        package var qemu: String
        /// The path of `bwrap`; nil starts QEMU without a jail.
        package var bubblewrap: String? = "/usr/bin/bwrap"
        package var accelerator: Accelerator
        /// The processor that guests see under TCG.
        package var processor = EmulatedProcessor.fast
        package var image: Image
        /// The initramfs's path, beside the image's files.
        package var initramfs: String
        /// Where the VMs' directories are; they are removed when the engine starts.
        package var directory: String
        /// Where templates are kept; nil boots every VM.
        package var templates: String?
        package var templateLimits = TemplateLimits()
        /// The shape that most sessions have.
        package var commonShape = VMShape(memoryMB: Defaults.memoryMB, vcpuCount: Defaults.vcpuCount)
        /// Machines that wait for a session, of that shape and of each shape at the most.
        package var pool = PoolPolicy.Limits(minimum: 0, maximum: 0)
        /// How long a guest may take to boot.
        package var bootTimeout: Duration = .seconds(60)
        /// Bytes that a VM may write to its disk on top of the image.
        package var diskLimit = UInt64(Defaults.diskMB) << 20
        /// Bytes that the QEMUs of all VMs together may write; nil for as many as are asked for.
        package var diskBudget: UInt64?
        /// How fast a VM may use its disk; nil for no limit.
        package var diskRate: DiskRate?
        package var capacity = HostCapacity.Limits(memory: MemoryPolicy.Limits(machine: HostMemory.total))

        package init(qemu: String, accelerator: Accelerator, image: Image, initramfs: String, directory: String) {
            self.qemu = qemu
            self.accelerator = accelerator
            self.image = image
            self.initramfs = initramfs
            self.directory = directory
        }
    }
}
