// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import NIOPosix
import SwiftletCore

/// The root directory that a jailed QEMU sees: its executable, the libraries it is linked with, its firmware, and nothing else.
///
/// One read-only mount instead of dozens, and no other program that could be executed. The name is a digest of where the files come
/// from and when they changed, so an upgraded library makes a new one.
package struct JailRoot: Equatable, Sendable {
    /// QEMU's firmware for its `microvm` machine, and what may stand in for it.
    private static let firmware = ["bios-microvm.bin", "qboot.rom"]
    /// Where mounts go; see `Jail`.
    private static let mountPoints = ["proc", "dev", "image", "template", "vm"]
    private static let mountFiles = ["dev/kvm", "dev/null", "vm/disk.qcow2"]

    package let directory: String
    /// The path of QEMU in it.
    package let qemu: String

    package init(directory: String, qemu: String) {
        self.directory = directory
        self.qemu = qemu
    }

    /// The root for a QEMU, made if it is not there.
    ///
    /// - Parameter parent: a directory of ours; roots in it that nobody has used for a week are removed.
    /// - Throws: `MicroVMError.cannotStart` when the executable's libraries cannot be listed or copied.
    static func ensure(
        in parent: String,
        qemu: String,
        spawner: NIOThreadPool,
        threads: NIOThreadPool
    ) async throws -> JailRoot {
        let listed = try await ShortCommand("/usr/bin/ldd", [qemu]).run(spawner: spawner, threads: threads)
        guard listed.status == .exited(0) else {
            throw MicroVMError.cannotStart("ldd \(qemu) ended with \(listed.status): \(listed.output.suffix(200))")
        }
        let libraries = listed.output.split(separator: "\n").compactMap(Self.library)
        return try await threads.runIfActive {
            let sources = [qemu] + libraries + Self.accelerators(of: qemu) + Self.firmwareFiles(of: qemu)
            let name = "jail-\(try Self.digest(of: sources))"
            let root = JailRoot(directory: "\(parent)/\(name)", qemu: qemu)
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

    /// The accelerators that this build of QEMU has as modules; their libraries are QEMU's own.
    private static func accelerators(of qemu: String) -> [String] {
        let prefix = URL(filePath: qemu).deletingLastPathComponent().deletingLastPathComponent().path
        let directories = ["\(prefix)/lib/x86_64-linux-gnu/qemu", "\(prefix)/lib/qemu"]
        return directories.flatMap { directory in
            let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
            return names.filter { $0.hasPrefix("accel-tcg-") }.sorted().map { "\(directory)/\($0)" }
        }
    }

    private static func firmwareFiles(of qemu: String) -> [String] {
        let prefix = URL(filePath: qemu).deletingLastPathComponent().deletingLastPathComponent().path
        let directories = ["\(prefix)/share/qemu", "/usr/share/qemu", "/usr/share/seabios"]
        return firmware.compactMap { name in
            directories.map { "\($0)/\(name)" }.first(where: FileManager.default.fileExists(atPath:))
        }
    }

    private static func digest(of sources: [String]) throws -> String {
        var hash = SHA256()
        for source in sources {
            let attributes = try FileManager.default.attributesOfItem(
                atPath: URL(filePath: source).resolvingSymlinksInPath().path
            )
            let modified = (attributes[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
            hash.update(data: Data("\(source) \(attributes[.size] ?? 0) \(Int(modified))\n".utf8))
        }
        return hash.finalize().prefix(6).hexadecimal
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
