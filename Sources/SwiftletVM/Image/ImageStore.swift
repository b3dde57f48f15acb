// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import Glibc
import SwiftletCore

/// The images of a directory, each in a subdirectory named after its id.
///
/// An image appears whole or not at all: it is built beside and renamed. All calls block.
package struct ImageStore: Sendable {
    /// The files that a manifest has the digests of.
    private static let digested = ["vmlinuz", "rootfs.ext4", "packages"]

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
                    + "swiftlet image build --variant \(variant.rawValue); "
                    + "or take one from another machine with: swiftlet image import FILE"
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

    /// Takes over the directory of an image that was made elsewhere, after a check of its digests. The caller has the lock.
    ///
    /// - Parameter source: what the errors call it.
    /// - Throws: `ImageError` when it is no image of this format, when a digest differs, or when another image has its id.
    func adopt(_ directory: String, from source: String) throws -> Image {
        guard let image = load(directory) else {
            throw ImageError("\(source) is not an image, or one of another version of Swiftlet")
        }
        let id = image.id
        guard id.wholeMatch(of: /(standard|minimal)-[0-9a-f]{12}/)?.1 == Substring(image.manifest.variant.rawValue)
        else {
            throw ImageError("\(source) is not an image: its id is \(id.prefix(60).debugDescription)")
        }
        for name in Self.digested {
            guard try image.manifest.digests[name] == Self.digest(ofFile: "\(directory)/\(name)") else {
                throw ImageError("\(source) is damaged: the digest of \(name) differs")
            }
        }
        let target = "\(self.directory)/\(id)"
        if let present = load(target) {
            guard present.manifest.digests == image.manifest.digests else {
                throw ImageError(
                    "Another image \(id) is there, made of other packages; remove it first: swiftlet image remove \(id)"
                )
            }
            return present
        }
        if FileManager.default.fileExists(atPath: target) { try FileManager.default.removeItem(atPath: target) }
        try FileManager.default.moveItem(atPath: directory, toPath: target)
        return Image(directory: target, manifest: image.manifest)
    }

    /// Makes an image of the files that a build left in a directory of ours.
    package func publish(_ built: String, id: String, variant: ImageVariant) throws -> Image {
        var digests: [String: String] = [:]
        for name in Self.digested {
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
