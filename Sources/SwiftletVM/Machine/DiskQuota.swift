// SPDX-License-Identifier: Apache-2.0

/// What a VM's programs may write to its disk, and what its QEMU may make of that on the host.
package struct DiskQuota: Equatable, Sendable {
    /// Bytes for the guest's programs.
    package var bytes: UInt64

    package init(bytes: UInt64) {
        self.bytes = bytes
    }

    /// The largest file that QEMU may write, in bytes, whatever its guest does.
    ///
    /// The overlay holds clusters of 64 KiB, its own tables, the file system's (inodes, bitmaps) where they changed, and files of the
    /// image that were changed in place. A guest that keeps to its quota meets no limit here.
    package var fileSize: UInt64 { bytes + bytes / 16 + (48 << 20) }
}

/// How fast a VM's disk may be used; 0 for no limit.
package struct DiskRate: Equatable, Sendable {
    /// Bytes that are read or written in a second, over a longer time.
    package var bytesPerSecond: Int
    /// Requests in a second, over a longer time.
    package var requestsPerSecond: Int

    package init(bytesPerSecond: Int, requestsPerSecond: Int) {
        self.bytesPerSecond = bytesPerSecond
        self.requestsPerSecond = requestsPerSecond
    }

    /// For so many seconds a disk that was idle may be used ``burstFactor`` times as fast: most programs are over by then.
    static let burstSeconds = 10
    static let burstFactor = 4
}
