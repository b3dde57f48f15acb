// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOPosix
import SwiftletCore

/// The root directory that a jailed QEMU sees: its executable, the libraries it is linked with, its firmware, and nothing else.
///
/// One read-only mount instead of dozens, and no other program that could be executed. The name is a digest of where the files come
/// from and when they changed, so an upgraded library makes a new one.
package struct JailRoot: Equatable, Sendable {
    /// Where mounts go; see `Jail`.
    private static let mountPoints = ["proc", "dev", "image", "template", "vm"]
    private static let mountFiles = ["dev/kvm", "dev/null", "vm/disk.qcow2"]

    package let directory: String
    /// The path of QEMU in it.
    package let qemu: String
    /// What QEMU needs in its environment.
    let environment: [String: String]

    package init(directory: String, qemu: String, environment: [String: String] = [:]) {
        self.directory = directory
        self.qemu = qemu
        self.environment = environment
    }

    /// The root for a QEMU, made if it is not there.
    ///
    /// - Parameter parent: a directory of ours; roots in it that nobody has used for a week are removed.
    /// - Throws: `MicroVMError.cannotStart` when the executable's libraries cannot be listed or copied.
    static func ensure(
        in parent: String,
        qemu: QEMUBuild,
        spawner: NIOThreadPool,
        threads: NIOThreadPool
    ) async throws -> JailRoot {
        var command = ShortCommand("/usr/bin/ldd", [qemu.executable])
        command.environment = qemu.environment
        let listed = try await command.run(spawner: spawner, threads: threads)
        guard listed.status == .exited(0) else {
            throw MicroVMError.cannotStart(
                "ldd \(qemu.executable) ended with \(listed.status): \(listed.output.suffix(200))"
            )
        }
        let libraries = listed.output.split(separator: "\n").compactMap(Self.library)
        return try await threads.runIfActive {
            let sources = [qemu.executable] + libraries + qemu.modules + qemu.firmware
            let name = "jail-\(try QEMUBuild.digest(of: sources))"
            let root = JailRoot(
                directory: "\(parent)/\(name)",
                qemu: qemu.executable,
                environment: qemu.environment
            )
            if !FileManager.default.fileExists(atPath: root.directory) { try root.make(from: sources, in: parent) }
            try FileManager.default.markUsed(name, in: parent, removingUnused: "jail-")
            return root
        }
    }

    /// The path in a line of ldd's: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, or without a name before it.
    private static func library(_ line: Substring) -> String? {
        let words = line.split(whereSeparator: \.isWhitespace)
        return words.first { $0.hasPrefix("/") }.map(String.init)
    }

    private func make(from sources: [String], in parent: String) throws {
        let files = FileManager.default
        let work = "\(parent)/.jail-\(UUID().uuidString)"
        defer { try? files.removeItem(atPath: work) }
        for name in Self.mountPoints {
            try files.createDirectory(atPath: "\(work)/\(name)", withIntermediateDirectories: true)
        }
        for name in Self.mountFiles { try Data().write(to: URL(filePath: "\(work)/\(name)")) }
        for source in sources {
            let target = URL(filePath: work + source)
            try files.createDirectory(at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
            if files.fileExists(atPath: target.path) { continue }
            try files.copyItem(at: URL(filePath: source).resolvingSymlinksInPath(), to: target)
        }
        try files.moveItem(atPath: work, toPath: directory)
    }
}
