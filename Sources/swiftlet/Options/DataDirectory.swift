// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletClient

/// Where a server keeps what outlives it.
struct DataDirectory: Sendable {
    var path: String
    var images: String
    var templates: String

    init(path: String, images: String) {
        self.path = path
        self.images = images
        templates = "\(path)/templates"
    }

    var database: String { "\(path)/swiftlet.sqlite" }
    var vms: String { "\(path)/vms" }
    /// Outputs that are too large for the database.
    var executions: String { "\(path)/executions" }
    var accelerator: String { "\(path)/accelerator.json" }
    /// The first user's key, for the command line on the same machine.
    var firstKey: String { FirstKey.file(inDataDirectory: path) }

    private var tokenSecretFile: String { "\(path)/token-secret" }

    /// Makes the directories, readable by this user alone, and closes what others could look into.
    ///
    /// - Throws: `ValidationError` when that cannot be done.
    func create() throws {
        for directory in [path, executions] {
            try FileManager.default.createDirectory(
                atPath: directory,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
            try Self.close(directory, to: 0o700)
        }
        for file in [firstKey, tokenSecretFile] where FileManager.default.fileExists(atPath: file) {
            try Self.close(file, to: 0o600)
        }
    }

    /// Takes away what a file's or directory's mode gives to others.
    private static func close(_ path: String, to mode: Int) throws {
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        guard let found = attributes[.posixPermissions] as? NSNumber, found.intValue & 0o077 != 0 else { return }
        do {
            try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        } catch {
            throw ValidationError(
                "\(path) can be read by others, and its mode cannot be changed; is it another user's?"
            )
        }
    }

    /// The secret that signs tokens, made at the first start. Whoever removes the file makes all tokens worthless.
    ///
    /// - Throws: `ValidationError` when it cannot be read or written.
    func tokenSecret() throws -> [UInt8] {
        let file = tokenSecretFile
        if let known = FileManager.default.contents(atPath: file) {
            guard known.count >= 32 else {
                throw ValidationError("\(file) has less than 32 bytes; remove it, and another is made")
            }
            return Array(known)
        }
        var generator = SystemRandomNumberGenerator()
        let secret = (0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) }
        // Nobody else can read it: see `Swiftlet.main()`.
        guard FileManager.default.createFile(atPath: file, contents: Data(secret)) else {
            throw ValidationError("\(file) cannot be written")
        }
        return secret
    }

    /// Makes sure that no other server uses the directory, for as long as this process lives.
    ///
    /// - Throws: `ValidationError` when one does.
    func lock() throws {
        let descriptor = open("\(path)/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw ValidationError("\(path)/lock cannot be opened: \(String(cString: strerror(errno)))")
        }
        // Never closed: the kernel lets go of the lock when the process ends, however it ends.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw ValidationError("Another server uses \(path); stop it, or choose another with --data-directory")
        }
    }
}
