// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import NIOCore
package import NIOPosix

/// An image in one file, to take from one machine to another: a tar archive of its directory, compressed by gzip.
package struct ImageArchive: Sendable {
    /// The archive's members. `modules` is a directory of regular files.
    private static let members = ["manifest.json", "vmlinuz", "rootfs.ext4", "packages", "modules"]

    package var file: String

    package init(file: String) {
        self.file = file
    }

    /// Writes an image into the file, which appears whole or not at all.
    ///
    /// - Throws: `ImageError` when there is no such image, when the file exists, or when it cannot be written.
    package func write(_ id: String, from store: ImageStore, spawner: NIOThreadPool, threads: NIOThreadPool)
        async throws
    {
        guard let image = try store.list().first(where: { $0.id == id }) else {
            throw ImageError("There is no image \(id) in \(store.directory); `swiftlet image list` shows what is there")
        }
        guard !FileManager.default.fileExists(atPath: file) else {
            throw ImageError("\(file) exists; remove it, or choose another name")
        }
        let partial = "\(file).partial"
        do {
            try await tar(
                ["--create", "--sparse", "--owner=0", "--group=0", "--numeric-owner"],
                file: partial,
                directory: image.directory,
                spawner: spawner,
                threads: threads
            )
            try FileManager.default.moveItem(atPath: partial, toPath: file)
        } catch {
            unlink(partial)
            throw error
        }
    }

    /// Takes the image in the file into a store, after a check of its digests.
    ///
    /// An image with the same id and the same digests stays as it is.
    /// - Throws: `ImageError` when the file is no archive of an image, is damaged, or when another image has its id.
    package func read(into store: ImageStore, spawner: NIOThreadPool, threads: NIOThreadPool) async throws -> Image {
        guard FileManager.default.fileExists(atPath: file) else { throw ImageError("There is no file \(file)") }
        return try await store.withLock {
            let directory = "\(store.directory)/.importing-\(UUID().uuidString)"
            try FileManager.default.createDirectory(
                atPath: directory,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o755]
            )
            defer { try? FileManager.default.removeItem(atPath: directory) }
            try await tar(
                ["--extract", "--no-same-owner", "--no-same-permissions"],
                file: file,
                directory: directory,
                spawner: spawner,
                threads: threads
            )
            return try await threads.runIfActive {
                try checkFiles(in: directory)
                return try store.adopt(directory, from: file)
            }
        }
    }

    private func tar(
        _ mode: [String],
        file: String,
        directory: String,
        spawner: NIOThreadPool,
        threads: NIOThreadPool
    ) async throws {
        let path = URL(filePath: file).path
        // What is written may be read by other servers' users, as what a build leaves.
        let command = ShortCommand(
            "/bin/sh",
            ["-c", "umask 022; exec tar \"$@\"", "tar"] + mode
                + ["--gzip", "--file", path, "--force-local", "--directory", directory] + Self.members
        )
        let outcome = try await command.run(within: .minutes(60), spawner: spawner, threads: threads)
        guard outcome.status == .exited(0) else {
            let words = outcome.output.split(separator: "\n").suffix(3).joined(separator: "\n")
            throw ImageError("tar failed with \(self.file) (\(outcome.status)):\n\(words)")
        }
    }

    /// An archive from elsewhere may hold links that lead out of its directory, devices, or more than an image has.
    private func checkFiles(in directory: String) throws {
        let found = FileManager.default.enumerator(atPath: directory)?.compactMap { $0 as? String } ?? []
        for name in found {
            var status = stat()
            guard lstat("\(directory)/\(name)", &status) == 0 else {
                throw ImageError("\(name) of \(file) is unreadable")
            }
            let expected = name == "modules" ? S_IFDIR : S_IFREG
            let parts = name.split(separator: "/")
            let isKnown = parts.count == 1 ? Self.members.contains(name) : parts.count == 2 && parts[0] == "modules"
            guard isKnown, status.st_mode & S_IFMT == expected else {
                throw ImageError("\(file) is not an image: it has \(name), which no image has")
            }
        }
    }
}
