// SPDX-License-Identifier: Apache-2.0

import Foundation

extension Image {
    /// Bytes of its file system that a guest cannot have: ext4 keeps 16 MiB for itself, and a template has written some.
    private static let keptBytes: UInt64 = 64 << 20

    /// The largest quota that a VM's disk can have: what is free in the root file system. Blocks.
    ///
    /// Format: the kernel's Documentation/filesystems/ext4, "The Super Block".
    /// - Throws: `ImageError` when the file is no ext4 file system.
    package func largestDiskQuota() throws -> UInt64 {
        let superblock: [UInt8]
        do {
            let file = try FileHandle(forReadingFrom: URL(filePath: rootFileSystem))
            defer { try? file.close() }
            try file.seek(toOffset: 1_024)
            superblock = [UInt8](try file.read(upToCount: 1_024) ?? Data())
        } catch {
            throw ImageError("\(rootFileSystem) cannot be read: \(error.localizedDescription)")
        }
        func number(at offset: Int, bytes: Int) -> UInt64 {
            superblock[offset..<(offset + bytes)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        guard superblock.count == 1_024, number(at: 0x38, bytes: 2) == 0xef53, number(at: 0x18, bytes: 4) <= 6 else {
            throw ImageError("\(rootFileSystem) is no ext4 file system")
        }
        let isWide = number(at: 0x60, bytes: 4) & 0x80 != 0
        let blocks = number(at: 0x0c, bytes: 4) | (isWide ? number(at: 0x158, bytes: 4) << 32 : 0)
        let (free, isOver) = blocks.multipliedReportingOverflow(by: 1_024 << number(at: 0x18, bytes: 4))
        guard !isOver else { throw ImageError("\(rootFileSystem) is no ext4 file system") }
        return free > Self.keptBytes ? free - Self.keptBytes : 0
    }
}
