// SPDX-License-Identifier: Apache-2.0

import Crypto
package import Foundation
import Glibc
import NIOPosix
import SwiftletCore

/// A template on the disk.
package struct Template: Equatable, Sendable {
    package let directory: String
    package let manifest: TemplateManifest

    package var name: String { URL(filePath: directory).lastPathComponent }
    package var memory: String { "\(directory)/memory" }
    package var state: String { "\(directory)/state" }
    package var disk: String { "\(directory)/disk.qcow2" }
    /// Its time of change is the template's last use.
    package var used: String { "\(directory)/used" }

    /// When a clone's server last loaded it.
    package var usedAt: Date {
        let attributes = try? FileManager.default.attributesOfItem(atPath: used)
        return attributes?[.modificationDate] as? Date ?? manifest.createdAt
    }

    /// Bytes on the disk; holes do not count.
    package var sizeOnDisk: Int {
        [memory, state, disk].reduce(0) { sum, path in
            var status = stat()
            return stat(path, &status) == 0 ? sum + Int(status.st_blocks) * 512 : sum
        }
    }
}

/// The templates of a directory, each in a subdirectory named after its identity.
///
/// A template appears whole or not at all: it is built beside and renamed. All calls block.
package struct TemplateStore: Sendable {
    package let directory: String

    package init(directory: String) {
        self.directory = directory
    }

    /// All templates, the last used first.
    package func list() -> [Template] {
        names().compactMap { try? read("\(directory)/\($0)") }.sorted { $0.usedAt > $1.usedAt }
    }

    /// The template of an identity, checked; nil when there is none. One that is damaged or foreign is removed.
    ///
    /// - Parameter onDamage: told why a template was removed.
    package func load(_ identity: TemplateIdentity, tscKHz: UInt64, onDamage: (String) -> Void) -> Template? {
        for name in names() where name.hasPrefix(identity.name + "-") {
            let path = "\(directory)/\(name)"
            do {
                let template = try read(path)
                if let reason = template.manifest.mismatch(with: identity) { throw TemplateError(reason) }
                // It may be right for another host that shares the directory.
                guard template.manifest.keepsTime(at: tscKHz) else { continue }
                try check(template)
                try Data().write(to: URL(filePath: template.used))
                return template
            } catch {
                onDamage("\(error)")
                // What cannot be removed stays unused: it is checked at each load.
                try? FileManager.default.removeItem(atPath: path)
            }
        }
        return nil
    }

    /// Waits until nobody else on this host builds a template here.
    func lock(threads: NIOThreadPool) async throws -> DirectoryLock {
        try await threads.runIfActive { try makeDirectory() }
        while true {
            if let lock = try await threads.runIfActive({ try DirectoryLock(directory) }) { return lock }
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    /// Removes a template's files. Clones that run keep what they have.
    ///
    /// - Throws: `TemplateError` when there is none with this name.
    package func remove(_ name: String) throws {
        guard names().contains(name) else { throw TemplateError("There is no template \(name) in \(directory)") }
        try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
    }

    /// Removes the longest unused templates until the rest keeps to the limits.
    ///
    /// - Returns: the names of the removed.
    package func evict(maximumBytes: Int, maximumAge: TimeInterval, keeping kept: Set<String> = []) -> [String] {
        var total = 0
        var removed: [String] = []
        for template in list() {
            let size = template.sizeOnDisk
            total += size
            let isOld = template.usedAt.timeIntervalSinceNow < -maximumAge
            guard total > maximumBytes || isOld, !kept.contains(template.name) else { continue }
            // Another server may have been faster.
            try? FileManager.default.removeItem(atPath: template.directory)
            total -= size
            removed.append(template.name)
        }
        return removed
    }

    /// A fresh directory to build in, for the holder of the lock. What builds that were cut off have left is cleared.
    package func makeWorkDirectory() throws -> String {
        let files = FileManager.default
        try makeDirectory()
        for name in try files.contentsOfDirectory(atPath: directory) where name.hasPrefix(".building-") {
            try files.removeItem(atPath: "\(directory)/\(name)")
        }
        let path = "\(directory)/.building-\(UUID().uuidString.prefix(8))"
        try files.createDirectory(
            atPath: path,
            withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o700]
        )
        return path
    }

    private func makeDirectory() throws {
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
    }

    /// Makes a template of the files in a work directory.
    package func publish(_ work: String, identity: TemplateIdentity, tscKHz: UInt64) throws -> Template {
        let manifest = TemplateManifest(
            identity: identity,
            createdAt: Date(),
            tscKHz: tscKHz,
            memorySize: identity.shape.memoryMB << 20,
            stateDigest: try Self.digest("\(work)/state"),
            diskDigest: try Self.digest("\(work)/disk.qcow2")
        )
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        encoder.dateEncodingStrategy = .iso8601
        try encoder.encode(manifest).write(to: URL(filePath: "\(work)/manifest.json"))
        // A name of its own: a server that has loaded an older one may go on with its files.
        let target = "\(directory)/\(identity.name)-\(UUID().uuidString.prefix(8).lowercased())"
        try FileManager.default.moveItem(atPath: work, toPath: target)
        return Template(directory: target, manifest: manifest)
    }

    private func names() -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        return names.filter { !$0.hasPrefix(".") }
    }

    private func read(_ path: String) throws -> Template {
        guard let data = FileManager.default.contents(atPath: "\(path)/manifest.json") else {
            throw TemplateError("it has no manifest")
        }
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        guard let manifest = try? decoder.decode(TemplateManifest.self, from: data) else {
            throw TemplateError("its manifest cannot be read")
        }
        return Template(directory: path, manifest: manifest)
    }

    private func check(_ template: Template) throws {
        var status = stat()
        guard stat(template.memory, &status) == 0, Int(status.st_size) == template.manifest.memorySize else {
            throw TemplateError("its memory file is cut off or missing")
        }
        guard try Self.digest(template.state) == template.manifest.stateDigest else {
            throw TemplateError("its device state is damaged")
        }
        guard try Self.digest(template.disk) == template.manifest.diskDigest else {
            throw TemplateError("its disk is damaged")
        }
    }

    private static func digest(_ path: String) throws -> String {
        guard let data = FileManager.default.contents(atPath: path) else { throw TemplateError("\(path) is missing") }
        return SHA256.hash(data: data).hexadecimal
    }
}
