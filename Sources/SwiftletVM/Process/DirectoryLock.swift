// SPDX-License-Identifier: Apache-2.0

import Glibc

/// The right to build in a directory, among all processes of the host, as long as the value lives.
final class DirectoryLock: Sendable {
    /// Why the lock's file could not be opened.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private let descriptor: Int32

    /// Takes it; nil when another process has it.
    init?(_ directory: String) throws(Failure) {
        let path = "\(directory)/.lock"
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Failure(description: "\(path): \(String(cString: strerror(errno)))") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { return nil }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }
}
