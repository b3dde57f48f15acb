// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import NIOCore
package import NIOPosix
import SwiftletCore

/// How an image is built: the files of `guest/` that decide what is in it.
package struct ImageRecipe: Sendable {
    /// The `guest/` directory.
    package var resources: String
    package var variant: ImageVariant

    package init(resources: String, variant: ImageVariant) {
        self.resources = resources
        self.variant = variant
    }

    /// The id of the image that this recipe gives. The same inputs give the same id. Blocks.
    package func imageID() throws -> String {
        var hash = SHA256()
        hash.update(data: Data("format \(ImageManifest.currentFormat)\n".utf8))
        let skeleton = "\(resources)/rootfs"
        let files = FileManager.default.enumerator(atPath: skeleton)?.compactMap { $0 as? String }.sorted() ?? []
        let inputs = ["build-image", "variants/\(variant.rawValue)"] + files.map { "rootfs/\($0)" }
        for input in inputs {
            guard let data = FileManager.default.contents(atPath: "\(resources)/\(input)") else {
                var isDirectory: ObjCBool = false
                let exists = FileManager.default.fileExists(atPath: "\(resources)/\(input)", isDirectory: &isDirectory)
                if exists, isDirectory.boolValue { continue }
                throw ImageError("\(resources)/\(input) is missing; is SWIFTLET_RESOURCES the guest/ directory?")
            }
            hash.update(data: Data("\(input) \(data.count)\n".utf8))
            hash.update(data: data)
        }
        let digest = hash.finalize().prefix(6).hexadecimal
        return "\(variant.rawValue)-\(digest)"
    }

    /// Builds the image unless it is there.
    ///
    /// - Parameters:
    ///   - force: build it even if it is there, for newer packages.
    ///   - built: a directory in which `guest/build-image` has left the files already; they are moved. Nil runs it.
    ///   - progress: called with each line that the build prints.
    /// - Throws: `ImageError` with the end of the build's output.
    package func build(
        into store: ImageStore,
        force: Bool = false,
        built: String? = nil,
        spawner: NIOThreadPool,
        threads: NIOThreadPool,
        progress: @escaping @Sendable (String) -> Void
    ) async throws -> Image {
        try await store.withLock {
            if !force, let image = try store.image(builtFrom: self) { return image }
            let id = try imageID()
            if let built {
                return try await threads.runIfActive { try store.publish(built, id: id, variant: variant) }
            }
            let directory = "\(store.directory)/.building-\(id)"
            try? FileManager.default.removeItem(atPath: directory)
            try FileManager.default.createDirectory(
                atPath: directory,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o755]
            )
            defer { try? FileManager.default.removeItem(atPath: directory) }
            try await runBuild(in: directory, spawner: spawner, threads: threads, progress: progress)
            return try await threads.runIfActive { try store.publish(directory, id: id, variant: variant) }
        }
    }

    private func runBuild(
        in directory: String,
        spawner: NIOThreadPool,
        threads: NIOThreadPool,
        progress: @escaping @Sendable (String) -> Void
    ) async throws {
        // The guest's files have the modes that they have on any Debian, and the image's may be read by other servers' users.
        let command = ShortCommand(
            "/bin/sh",
            ["-c", "umask 022; exec \"$0\" \"$@\"", "\(resources)/build-image", variant.rawValue, directory]
        )
        let outcome = try await command.run(
            within: .minutes(60),
            spawner: spawner,
            threads: threads,
            onLine: progress
        )
        guard outcome.status == .exited(0) else {
            let words = outcome.output.split(separator: "\n").suffix(5).joined(separator: "\n")
            throw ImageError("Building the \(variant.rawValue) image failed (\(outcome.status)):\n\(words)")
        }
    }
}
