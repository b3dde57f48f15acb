// SPDX-License-Identifier: Apache-2.0

/// A QEMU's version. What QEMU can do is decided by it and not by the distribution's name.
package struct QEMUVersion: Codable, Comparable, CustomStringConvertible, Hashable, Sendable {
    /// The oldest version that was tried.
    package static let oldest = QEMUVersion(major: 7, minor: 2)

    package let major: Int
    package let minor: Int
    package let patch: Int

    package init(major: Int, minor: Int, patch: Int = 0) {
        self.major = major
        self.minor = minor
        self.patch = patch
    }

    /// The version in a line like `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`; nil for any other line.
    package init?(line: some StringProtocol) {
        let prefix = "QEMU emulator version "
        guard line.hasPrefix(prefix) else { return nil }
        let numbers = line.dropFirst(prefix.count).prefix { $0 != " " }
            .split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
        guard numbers.count >= 2, let major = numbers[0], let minor = numbers[1], major >= 0, minor >= 0 else {
            return nil
        }
        // A release candidate or a build of a branch may have words here.
        let patch = numbers.count > 2 ? numbers[2] ?? 0 : 0
        self.init(major: major, minor: minor, patch: patch)
    }

    package static func < (left: QEMUVersion, right: QEMUVersion) -> Bool {
        (left.major, left.minor, left.patch) < (right.major, right.minor, right.patch)
    }

    package var description: String { "\(major).\(minor).\(patch)" }

    /// Translated code is found by its virtual address. With address space randomisation each `exec` then translates the dynamic
    /// linker and libc anew. QEMU 8 finds it by its place in memory.
    var findsTranslationsByVirtualAddress: Bool { major < 8 }

    /// Whether the `microvm` machine starts a Linux kernel without option ROMs. With QEMU 10 such a guest never starts; versions
    /// between have not been tried and get the option ROMs, which are QEMU's default.
    var startsLinuxWithoutOptionROMs: Bool { major < 8 }

    /// The firmware files that its `microvm` machine may load, by name.
    package var firmware: [String] {
        let all = ["bios-microvm.bin", "qboot.rom"]
        return startsLinuxWithoutOptionROMs
            ? all : all + ["linuxboot_dma.bin", "linuxboot.bin", "pvh.bin", "kvmvapic.bin"]
    }
}
