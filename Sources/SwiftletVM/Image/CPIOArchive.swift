// SPDX-License-Identifier: Apache-2.0

import SwiftletCore

/// Writes a cpio archive as the kernel unpacks it for an initramfs.
///
/// Format "newc": the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Owner and times are zero, so equal
/// contents give equal bytes.
package struct CPIOArchive: Sendable {
    /// The archive so far.
    package private(set) var bytes: [UInt8] = []
    private var lastInode: UInt32 = 0

    package init() {}

    package mutating func addDirectory(_ path: String) {
        add(path, mode: 0o040_755, content: [])
    }

    /// - Parameter permissions: the lowest nine mode bits.
    package mutating func addFile(_ path: String, permissions: UInt32, content: [UInt8]) {
        add(path, mode: 0o100_000 | permissions, content: content)
    }

    /// Ends the archive.
    package mutating func finish() {
        add("TRAILER!!!", mode: 0, content: [])
    }

    private mutating func add(_ path: String, mode: UInt32, content: [UInt8]) {
        lastInode += 1
        let name = Array(path.utf8) + [0]
        let links: UInt32 = 1
        let fields: [UInt32] = [
            lastInode, mode, 0, 0, links, 0, UInt32(content.count), 0, 0, 0, 0, UInt32(name.count), 0,
        ]
        bytes += Array("070701".utf8)
        for field in fields { bytes += Self.hexadecimal(field) }
        bytes += name
        pad()
        bytes += content
        pad()
    }

    private mutating func pad() {
        while !bytes.count.isMultiple(of: 4) { bytes.append(0) }
    }

    private static func hexadecimal(_ value: UInt32) -> [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        return (0..<8).reversed().map { digits[Int(value >> ($0 * 4)) & 0xf] }
    }
}
