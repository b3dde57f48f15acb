// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import SwiftletCore

/// The first file system of a guest: the agent, the kernel modules it loads, and the interpreters' programs.
///
/// It is made from the agent at hand and not with the image, so that a new server never meets an old agent.
package struct Initramfs: Sendable {
    /// The agent's executable.
    package var agent: String
    /// The recipe's directory (`guest/`), which holds the interpreters' programs.
    package var resources: String

    package init(agent: String, resources: String) {
        self.agent = agent
        self.resources = resources
    }

    /// The archive for an image, made if it is not there. Blocks.
    ///
    /// - Returns: its path, beside the image's files.
    /// - Throws: `ImageError` naming the file that is missing.
    package func ensure(for image: Image) throws -> String {
        let archive = try compose(modules: image.modules)
        let digest = SHA256.hash(data: archive).prefix(8).hexadecimal
        let name = "initramfs-\(digest).cpio"
        let path = "\(image.directory)/\(name)"
        if !FileManager.default.fileExists(atPath: path) {
            try Data(archive).write(to: URL(filePath: path), options: .atomic)
            try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path)
        }
        try FileManager.default.markUsed(name, in: image.directory, removingUnused: "initramfs-")
        return path
    }

    private func compose(modules: String) throws -> [UInt8] {
        var archive = CPIOArchive()
        let own = ["swiftlet", "swiftlet/modules", "swiftlet/python", "swiftlet/javascript"]
        for directory in ["dev", "proc", "sys", "newroot"] + own { archive.addDirectory(directory) }
        archive.addFile("init", permissions: 0o755, content: try read(agent))
        try add(modules, as: "swiftlet/modules", to: &archive) { $0.hasSuffix(".ko") || $0 == "load" }
        try add("\(resources)/interpreters/python", as: "swiftlet/python", to: &archive) { $0.hasSuffix(".py") }
        try add("\(resources)/interpreters/javascript", as: "swiftlet/javascript", to: &archive) { $0.hasSuffix(".js") }
        archive.finish()
        return archive.bytes
    }

    private func add(
        _ directory: String,
        as target: String,
        to archive: inout CPIOArchive,
        where isWanted: (String) -> Bool
    ) throws {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        let wanted = names.filter(isWanted).sorted()
        guard !wanted.isEmpty else { throw ImageError("Nothing to put into the initramfs is in \(directory)") }
        for name in wanted {
            archive.addFile("\(target)/\(name)", permissions: 0o644, content: try read("\(directory)/\(name)"))
        }
    }

    private func read(_ path: String) throws -> [UInt8] {
        guard let data = FileManager.default.contents(atPath: path) else { throw ImageError("\(path) cannot be read") }
        return Array(data)
    }
}
