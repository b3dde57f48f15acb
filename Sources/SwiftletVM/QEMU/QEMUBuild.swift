// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
package import NIOPosix
import SwiftletCore

/// A QEMU on this host: its executable, and the files that belong to it.
///
/// A QEMU that was unpacked into a directory of its own has firmware and perhaps libraries beside it, which go before the system's.
package struct QEMUBuild: Equatable, Sendable {
    /// Its path, symbolic links resolved.
    package let executable: String
    package let version: QEMUVersion
    /// The line of its `--version` that names the distribution's build too.
    package let line: String
    /// Where its firmware is looked for, in this order.
    package let firmwareDirectories: [String]
    /// Where its libraries are looked for before the system's; none for the system's own QEMU.
    package let libraryDirectories: [String]

    package init(
        executable: String,
        version: QEMUVersion,
        line: String,
        firmwareDirectories: [String] = [],
        libraryDirectories: [String] = []
    ) {
        self.executable = executable
        self.version = version
        self.line = line
        self.firmwareDirectories = firmwareDirectories
        self.libraryDirectories = libraryDirectories
    }

    /// Asks a QEMU what it is, and looks for its files. Its version is read here and nowhere else.
    ///
    /// - Throws: `MicroVMError.cannotStart` when it does not run, is no QEMU or is too old.
    package static func examine(
        _ path: String,
        spawner: NIOThreadPool,
        threads: NIOThreadPool
    ) async throws -> QEMUBuild {
        let executable = URL(filePath: path).resolvingSymlinksInPath().path
        let libraries = try await threads.runIfActive { libraryDirectories(of: executable) }
        let firmware = try await threads.runIfActive { firmwareDirectories(of: executable) }
        var command = ShortCommand(executable, ["--version"])
        command.environment = environment(libraries: libraries)
        let outcome = try await command.run(spawner: spawner, threads: threads)
        let lines = outcome.output.split(whereSeparator: \.isNewline)
        // A library may have complained before.
        guard outcome.status == .exited(0), let line = lines.first(where: { QEMUVersion(line: $0) != nil }),
            let version = QEMUVersion(line: line)
        else {
            let words = outcome.output.trimmingCharacters(in: .whitespacesAndNewlines).prefix(300)
            throw MicroVMError.cannotStart("\(path) --version ended with \(outcome.status) and names no QEMU: \(words)")
        }
        guard version >= .oldest else {
            throw MicroVMError.cannotStart(
                "\(path) is QEMU \(version), and \(QEMUVersion.oldest) is the oldest that works"
            )
        }
        return QEMUBuild(
            executable: executable,
            version: version,
            line: String(line),
            firmwareDirectories: firmware,
            libraryDirectories: libraries
        )
    }

    /// What the processes of this QEMU need in their environment.
    package var environment: [String: String] { Self.environment(libraries: libraryDirectories) }

    /// The firmware that the `microvm` machine may load, as far as it is there.
    var firmware: [String] {
        version.firmware.compactMap { name in
            firmwareDirectories.map { "\($0)/\(name)" }.first(where: FileManager.default.fileExists(atPath:))
        }
    }

    /// The accelerators that this build has as modules.
    var modules: [String] {
        let prefix = Self.prefix(of: executable)
        return ["\(prefix)/lib/x86_64-linux-gnu/qemu", "\(prefix)/lib/qemu"].flatMap { directory in
            let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
            return names.filter { $0.hasPrefix("accel-tcg-") }.sorted().map { "\(directory)/\($0)" }
        }
    }

    /// The `qemu-img` beside it, or the system's.
    package var imageTool: String {
        let beside = URL(filePath: executable).deletingLastPathComponent().appending(path: "qemu-img").path
        return FileManager.default.isExecutableFile(atPath: beside) ? beside : "/usr/bin/qemu-img"
    }

    /// Tells two builds of one version apart: a digest of what its executable, modules and firmware are. Blocks.
    func fingerprint() throws -> String { try Self.digest(of: [executable] + modules + firmware) }

    /// A digest of files' names, sizes and times of change. Blocks.
    static func digest(of files: [String]) throws -> String {
        var hash = SHA256()
        for file in files {
            let target = URL(filePath: file).resolvingSymlinksInPath().path
            let attributes = try FileManager.default.attributesOfItem(atPath: target)
            let modified = (attributes[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
            hash.update(data: Data("\(file) \(attributes[.size] ?? 0) \(Int(modified))\n".utf8))
        }
        return hash.finalize().prefix(6).hexadecimal
    }

    /// `/usr` for `/usr/bin/qemu-system-x86_64`.
    private static func prefix(of executable: String) -> String {
        URL(filePath: executable).deletingLastPathComponent().deletingLastPathComponent().path
    }

    private static func firmwareDirectories(of executable: String) -> [String] {
        let prefix = prefix(of: executable)
        let own = ["\(prefix)/share/qemu", "\(prefix)/share/seabios"].filter(FileManager.default.fileExists(atPath:))
        return own + ["/usr/share/qemu", "/usr/share/seabios"].filter { !own.contains($0) }
    }

    private static func libraryDirectories(of executable: String) -> [String] {
        let prefix = prefix(of: executable)
        // The dynamic linker looks there by itself.
        if ["/", "/usr", "/usr/local"].contains(prefix) { return [] }
        let directories = ["\(prefix)/lib/x86_64-linux-gnu", "\(prefix)/lib"]
        return directories.filter { directory in
            let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
            return names.contains { $0.contains(".so") }
        }
    }

    private static func environment(libraries: [String]) -> [String: String] {
        libraries.isEmpty ? [:] : ["LD_LIBRARY_PATH": libraries.joined(separator: ":")]
    }
}
