// SPDX-License-Identifier: Apache-2.0

import Glibc

/// The guest's disk.
struct Disk {
    private var limit: UInt64 = 0

    /// Limits how many bytes programs may add to the root file system; 0 for no limit.
    ///
    /// Sets ext4's reserved clusters, which root cannot use either: a write to a full disk then fails with ENOSPC, not with EIO.
    /// Source: the kernel's Documentation/ABI/testing/sysfs-fs-ext4, `reserved_clusters`.
    mutating func limit(to bytes: UInt64) -> Bool {
        // The rehearsal has set it, and no program has written since.
        if bytes == limit { return true }
        limit = bytes
        guard bytes > 0 else { return true }
        var status = statvfs()
        guard statvfs("/", &status) == 0, status.f_frsize > 0 else { return false }
        let before = Int(Disk.readNumber() ?? 0)
        let free = Int(status.f_bavail) + before
        let wanted = Int(clamping: bytes) / Int(status.f_frsize)
        guard wanted < free else { return true }
        return writeFile(Disk.file, Array("\(free - wanted)".utf8))
    }

    private static let file = "/sys/fs/ext4/vda/reserved_clusters"

    private static func readNumber() -> UInt64? {
        readFile(file).flatMap { UInt64(String(decoding: $0.prefix { $0 != 10 }, as: UTF8.self)) }
    }
}
