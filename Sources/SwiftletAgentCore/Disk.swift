// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// The guest's disk.
struct Disk {
    private var limit: UInt64 = 0
    /// A file without a name that holds what programs may not have; -1 before there is one.
    private var ballast: Int32 = -1
    /// The ballast's size in bytes.
    private var held: UInt64 = 0

    /// Limits how many bytes programs may add to the root file system; 0 for no limit.
    ///
    /// What is above the limit is given to a file that is never written: blocks that nobody can use, root included, so a full disk is
    /// ENOSPC and not an input/output error. A mere number of reserved blocks would let the file system use one free block after the
    /// other, and the host would come to hold all that was ever written.
    mutating func limit(to bytes: UInt64) -> Bool {
        // The rehearsal has set it, and no program has written since.
        if bytes == limit { return true }
        limit = bytes
        guard bytes > 0 else { return true }
        var status = statvfs()
        guard statvfs("/", &status) == 0 else { return false }
        let free = UInt64(status.f_bavail) * UInt64(status.f_frsize) + held
        let wanted = free > bytes ? free - bytes : 0
        guard agent_hold_blocks("/", &ballast, held, wanted) == 0 else { return false }
        held = wanted
        return true
    }
}
