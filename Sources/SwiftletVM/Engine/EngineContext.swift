// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix

/// What every VM of an engine shares.
struct EngineContext: Sendable {
    var qemu: QEMUBuild
    var platform: QEMUPlatform
    var jail: Jail
    var cgroups: HostCgroups?
    /// Whether a slower pace can be taken back: without the right to, a VM would keep it for life.
    var mayRenice: Bool
    /// Of QEMU: higher than the server's, so that the kernel, short of memory, kills a VM and not the server with all of them.
    var oomScoreAdjustment: Int
    /// The image's directory and the names of its kernel and initramfs in it.
    var imageDirectory: String
    var kernel: String
    var initramfs: String
    /// An empty qcow2 overlay of the root file system's size; each VM gets a copy.
    var emptyDisk: String
    /// Where VM directories are made.
    var directory: String
    var bootTimeout: Duration
    /// Bytes that a VM may write to its disk.
    var diskLimit: UInt64
    /// How fast it may use it; nil for no limit.
    var diskRate: DiskRate?
    var eventLoopGroup: any EventLoopGroup
    /// One thread that lives as long as the process; see `ChildProcess.spawn`.
    var spawner: NIOThreadPool
    /// For short blocking calls.
    var blocking: NIOThreadPool
    var timings = VMTimings()

    /// A fresh file with the filter of system calls for a QEMU's jail.
    func filter() throws -> Descriptor {
        guard jail != .none else { return try .null() }
        return try .memory("filter", of: SystemCallFilter(usesKVM: platform.accelerator == .kvm).bytes)
    }
}
