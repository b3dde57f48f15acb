// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletVM
import Testing

@Suite struct CPIOArchiveTests {
    @Test func theArchiveIsReadByCpio() throws {
        var archive = CPIOArchive()
        archive.addDirectory("dev")
        archive.addFile("init", permissions: 0o755, content: Array("hello".utf8))
        archive.addFile("odd-name", permissions: 0o644, content: [])
        archive.finish()
        #expect(archive.bytes.count.isMultiple(of: 4))
        // Magic, mode and size of the second entry, where the format has them.
        let text = String(decoding: archive.bytes, as: UTF8.self)
        let entries = text.components(separatedBy: "070701").dropFirst()
        #expect(entries.count == 4)
        let file = try #require(entries.dropFirst().first)
        #expect(file.dropFirst(8).hasPrefix("000081ed"))
        #expect(file.dropFirst(48).hasPrefix("00000005"))
        #expect(file.contains("init") && file.contains("hello"))
        #expect(text.contains("TRAILER!!!"))
    }
}

@Suite struct ImageStoreTests {
    private let directory = NSTemporaryDirectory() + "swiftlet-images-\(UUID().uuidString)"

    private func built(_ id: String, _ store: ImageStore, variant: ImageVariant = .minimal) throws -> Image {
        let work = "\(directory)/.building-\(id)"
        try FileManager.default.createDirectory(atPath: "\(work)/modules", withIntermediateDirectories: true)
        for name in ["vmlinuz", "rootfs.ext4", "packages", "modules/load"] {
            try Data(name.utf8).write(to: URL(filePath: "\(work)/\(name)"))
        }
        return try store.publish(work, id: id, variant: variant)
    }

    @Test func aPublishedImageIsFoundUntilItIsRemoved() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let store = ImageStore(directory: directory)
        #expect(try store.list().isEmpty)
        #expect(throws: ImageError.self) { try store.newest(.minimal) }
        let image = try built("minimal-1", store)
        #expect(try store.newest(.minimal).id == image.id)
        #expect(throws: ImageError.self) { try store.newest(.standard) }
        #expect(image.manifest.digests["vmlinuz"]?.count == 64)
        try store.remove("minimal-1")
        #expect(try store.list().isEmpty)
        #expect(throws: ImageError.self) { try store.remove("minimal-1") }
    }

    @Test func whatIsNotWholeIsNoImage() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let store = ImageStore(directory: directory)
        let image = try built("minimal-1", store)
        try FileManager.default.removeItem(atPath: image.rootFileSystem)
        #expect(try store.list().isEmpty)
        let other = try built("minimal-2", store)
        try Data("{}".utf8).write(to: URL(filePath: "\(other.directory)/manifest.json"))
        #expect(try store.list().isEmpty)
    }

    @Test func anIdOutsideTheStoreRemovesNothing() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let store = ImageStore(directory: directory)
        _ = try built("minimal-1", store)
        for id in ["", ".", "..", "../..", "minimal-1/modules"] {
            #expect(throws: ImageError.self) { try store.remove(id) }
        }
        #expect(try store.list().count == 1)
    }

    @Test func aRecipesIdChangesWithWhatItIsMadeOf() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try FileManager.default.createDirectory(atPath: "\(directory)/variants", withIntermediateDirectories: true)
        try FileManager.default.createDirectory(atPath: "\(directory)/rootfs/etc", withIntermediateDirectories: true)
        let files = ["build-image", "variants/minimal", "rootfs/etc/hosts"]
        for file in files { try Data(file.utf8).write(to: URL(filePath: "\(directory)/\(file)")) }
        let recipe = ImageRecipe(resources: directory, variant: .minimal)
        let first = try recipe.imageID()
        #expect(try recipe.imageID() == first)
        #expect(first.hasPrefix("minimal-"))
        for file in files {
            try Data("changed \(file)".utf8).write(to: URL(filePath: "\(directory)/\(file)"))
            #expect(try recipe.imageID() != first)
            try Data(file.utf8).write(to: URL(filePath: "\(directory)/\(file)"))
        }
        let none = ImageRecipe(resources: "\(directory)/none", variant: .minimal)
        #expect(throws: ImageError.self) { try none.imageID() }
    }
}
