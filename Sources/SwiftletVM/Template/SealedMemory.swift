// SPDX-License-Identifier: Apache-2.0

import CProcess
import Foundation
import Glibc

/// A guest's memory in a file without a name, shared by all clones of a template.
///
/// Sealed, nobody can change a byte of it: QEMU opens its backing file for reading and writing, so that a QEMU taken over by its
/// guest could otherwise poison every later clone.
package final class SealedMemory: Sendable {
    package let descriptor: Int32
    /// Bytes, holes included.
    package let size: Int

    private init(descriptor: Int32, size: Int) {
        self.descriptor = descriptor
        self.size = size
    }

    deinit {
        close(descriptor)
    }

    /// Bytes that are in memory; holes are not.
    package var residentSize: Int {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? Int(status.st_blocks) * 512 : 0
    }

    /// Empty memory that may be written, until `seal()`.
    package static func make(size: Int) throws -> SealedMemory {
        let descriptor = cprocess_memory_file("swiftlet-memory")
        guard descriptor >= 0, ftruncate(descriptor, off_t(size)) == 0 else {
            let reason = String(cString: strerror(errno))
            if descriptor >= 0 { close(descriptor) }
            throw TemplateError("\(size >> 20) MiB of memory cannot be had: \(reason)")
        }
        return SealedMemory(descriptor: descriptor, size: size)
    }

    /// Loads a file, holes as holes, and seals the copy. Blocks.
    package static func load(_ path: String) throws -> SealedMemory {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw TemplateError("\(path): \(String(cString: strerror(errno)))") }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw TemplateError("\(path): \(String(cString: strerror(errno)))") }
        let memory = try make(size: Int(status.st_size))
        try copy(from: file, to: memory.descriptor, path)
        try memory.seal()
        return memory
    }

    /// Forbids every further change, for this process and all others.
    package func seal() throws {
        let failure = cprocess_seal(descriptor)
        guard failure == 0 else {
            throw TemplateError("Memory cannot be sealed: \(String(cString: strerror(failure)))")
        }
    }

    /// Writes it to a new file, holes as holes. Blocks.
    package func save(_ path: String) throws {
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0, ftruncate(file, off_t(size)) == 0 else {
            let reason = String(cString: strerror(errno))
            if file >= 0 { close(file) }
            throw TemplateError("\(path): \(reason)")
        }
        defer { close(file) }
        try Self.copy(from: descriptor, to: file, path)
        // A later server may trust what the manifest says.
        guard fsync(file) == 0 else { throw TemplateError("\(path): \(String(cString: strerror(errno)))") }
    }

    /// `SEEK_DATA` and `SEEK_HOLE` of lseek(2), which glibc's headers hide without _GNU_SOURCE.
    private static let seekData: Int32 = 3
    private static let seekHole: Int32 = 4

    private static func copy(from source: Int32, to target: Int32, _ path: String) throws {
        var offset: off_t = 0
        while case let start = lseek(source, offset, seekData), start >= 0 {
            offset = lseek(source, start, seekHole)
            guard offset > start, lseek(target, start, SEEK_SET) == start else {
                throw TemplateError("\(path): \(String(cString: strerror(errno)))")
            }
            var position = start
            while position < offset {
                let count = sendfile(target, source, &position, Int(offset - position))
                if count < 0, errno == EINTR { continue }
                guard count > 0 else {
                    throw TemplateError("\(path): \(count == 0 ? "it ends early" : String(cString: strerror(errno)))")
                }
            }
        }
        guard errno == ENXIO else { throw TemplateError("\(path): \(String(cString: strerror(errno)))") }
    }
}

/// Why a template could not be built or used.
package struct TemplateError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}
