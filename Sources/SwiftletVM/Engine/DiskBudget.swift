// SPDX-License-Identifier: Apache-2.0

import Glibc
import SwiftletCore

/// What the disks of a node's VMs may take of the host's, and what of it is promised.
package struct DiskBudget: Equatable, Sendable {
    /// Bytes that all QEMUs together may write; nil promises as much as is asked for.
    package let limit: UInt64?
    package private(set) var promised: UInt64 = 0

    package init(limit: UInt64?) {
        self.limit = limit
    }

    /// Promises a VM its disk.
    ///
    /// - Parameter free: bytes that are free on the file system of the VMs' disks; nil when it cannot be told.
    /// - Throws: `MicroVMError.full` with what is used up; nothing was promised then.
    package mutating func admit(_ quota: DiskQuota, free: UInt64?) throws(MicroVMError) {
        let wanted = quota.fileSize
        if let limit, promised + wanted > limit {
            let left = limit > promised ? limit - promised : 0
            throw .full(
                reason:
                    "This node has \(left >> 20) of \(limit >> 20) MiB of disk left for microVMs (diskBudgetMb), and this one needs "
                    + "\(wanted >> 20)"
            )
        }
        if let free, free < wanted {
            throw .full(
                reason:
                    "The disk of this node has \(free >> 20) MiB free, and this microVM may write \(wanted >> 20) (diskMb)"
            )
        }
        promised += wanted
    }

    /// A VM is gone.
    package mutating func release(_ quota: DiskQuota) {
        promised -= quota.fileSize
    }

    /// Bytes that this user may still write to a directory's file system.
    static func free(in directory: String) -> UInt64? {
        var status = statvfs()
        return statvfs(directory, &status) == 0 ? UInt64(status.f_bavail) * UInt64(status.f_frsize) : nil
    }
}
