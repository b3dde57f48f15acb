// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import Glibc
import SwiftletCore

/// The images of a directory, each in a subdirectory named after its id.
///
/// An image appears whole or not at all: it is built beside and renamed. All calls block.
package struct ImageStore: Sendable {
    package let directory: String

    package init(directory: String) {
        self.directory = directory
    }

    /// All images, the newest first.
    package func list() throws -> [Image] {
        guard FileManager.default.fileExists(atPath: directory) else { return [] }
        return try FileManager.default.contentsOfDirectory(atPath: directory)
            .compactMap { load("\(directory)/\($0)") }
            .sorted { $0.manifest.createdAt > $1.manifest.createdAt }
    }

    /// The newest image of a variant.
    ///
    /// - Throws: `ImageError` that names the command which builds one.
    package func newest(_ variant: ImageVariant) throws -> Image {
        guard let image = try list().first(where: { $0.manifest.variant == variant }) else {
            throw ImageError(
                "There is no \(variant.rawValue) image in \(directory); build it with: "
                    + "swiftlet image build --variant \(variant.rawValue)"
            )
        }
        return image
    }

    /// The image that a recipe gives, if it has been built.
    package func image(builtFrom recipe: ImageRecipe) throws -> Image? {
        load("\(directory)/\(try recipe.imageID())")
    }

    /// Removes an image's files.
    ///
    /// - Throws: `ImageError` when there is none with this id.
    package func remove(_ id: String) throws {
        guard let image = try list().first(where: { $0.id == id }) else {
            throw ImageError("There is no image \(id) in \(directory)")
        }
        try FileManager.default.removeItem(atPath: image.directory)
    }

    /// Makes an image of the files that a build left in a directory of ours.
    package func publish(_ built: String, id: String, variant: ImageVariant) throws -> Image {
        var digests: [String: String] = [:]
        for name in ["vmlinuz", "rootfs.ext4", "packages"] {
            digests[name] = try Self.digest(ofFile: "\(built)/\(name)")
        }
        let manifest = ImageManifest(
            format: ImageManifest.currentFormat,
            id: id,
            variant: variant,
            createdAt: Date(),
            digests: digests
        )
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        encoder.dateEncodingStrategy = .iso8601
        let file = "\(built)/manifest.json"
        try encoder.encode(manifest).write(to: URL(filePath: file))
        // Images hold nothing private, and may be shared by servers of several users.
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: file)
        let target = "\(directory)/\(id)"
        if FileManager.default.fileExists(atPath: target) { try FileManager.default.removeItem(atPath: target) }
        try FileManager.default.moveItem(atPath: built, toPath: target)
        return Image(directory: target, manifest: manifest)
    }

    /// Runs a body while no other process builds an image here.
    func withLock<Result>(_ body: () async throws -> Result) async throws -> Result {
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o755]
        )
        guard let lock = try DirectoryLock(directory) else {
            throw ImageError("Another process builds an image in \(directory); wait for it to end")
        }
        defer { withExtendedLifetime(lock) {} }
        return try await body()
    }

    /// An image that is whole and of this format; nil for anything else that lies in the directory.
    private func load(_ path: String) -> Image? {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        guard let data = FileManager.default.contents(atPath: "\(path)/manifest.json"),
            let manifest = try? decoder.decode(ImageManifest.self, from: data),
            manifest.format == ImageManifest.currentFormat
        else { return nil }
        let image = Image(directory: path, manifest: manifest)
        let files = [image.kernel, image.rootFileSystem, "\(image.modules)/load"]
        return files.allSatisfy(FileManager.default.fileExists(atPath:)) ? image : nil
    }

    /// SHA-256 in hexadecimal.
    private static func digest(ofFile path: String) throws -> String {
        guard let file = FileHandle(forReadingAtPath: path) else { throw ImageError("\(path) was not built") }
        defer { try? file.close() }
        var hash = SHA256()
        while let piece = try file.read(upToCount: 4 << 20), !piece.isEmpty { hash.update(data: piece) }
        return hash.finalize().hexadecimal
    }
}
