// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgent
import Glibc

/// An operation that the file system, or the file's nature, refused.
struct FileFailure: Error, Sendable {
    let code: FileDone.Failure
    let message: String
    /// Where a partial file ends, for `wrongOffset`.
    var count: UInt64 = 0

    init(_ code: FileDone.Failure, _ message: String, count: UInt64 = 0) {
        self.code = code
        self.message = message
        self.count = count
    }

    init(errno number: Int32) {
        message = String(cString: strerror(number))
        code =
            switch number {
            case ENOENT: .notFound
            case ENOTDIR: .notADirectory
            case EISDIR: .isADirectory
            // No reader at a pipe, no driver behind a device.
            case ENXIO, ENODEV: .notRegular
            case ENOSPC, EDQUOT: .noSpace
            case EACCES, EPERM, EROFS: .notPermitted
            case ENAMETOOLONG: .nameTooLong
            case EEXIST: .exists
            case ENOTEMPTY: .notEmpty
            case EFBIG: .tooLarge
            case EBUSY, ETXTBSY, EWOULDBLOCK: .busy
            case ELOOP: .tooManyLinks
            default: .other
            }
    }

    static var last: FileFailure { FileFailure(errno: errno) }

    var done: FileDone { FileDone(failure: code, message: message, count: count) }
}

/// A path in the guest: bytes of any kind, which need not be text.
struct GuestPath: Sendable {
    private static let maximumLinks = 40
    private static let slash = UInt8(ascii: "/")

    let bytes: [UInt8]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    func withCString<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
        (bytes + [0]).withUnsafeBufferPointer { buffer in
            buffer.withMemoryRebound(to: CChar.self) { text in
                // There is at least the NUL.
                body(text.baseAddress.unsafelyUnwrapped)
            }
        }
    }

    /// The directory that holds it.
    var parent: GuestPath {
        let end = bytes.lastIndex(of: GuestPath.slash) ?? 0
        return GuestPath(end == 0 ? [GuestPath.slash] : Array(bytes[..<end]))
    }

    var name: ArraySlice<UInt8> {
        bytes[((bytes.lastIndex(of: GuestPath.slash) ?? -1) + 1)...]
    }

    func appending(_ name: some Sequence<UInt8>) -> GuestPath {
        GuestPath((bytes == [GuestPath.slash] ? [] : bytes) + [GuestPath.slash] + name)
    }

    /// The status of the file at the path, or of the symbolic link there unless `following`.
    func status(following: Bool) throws(FileFailure) -> FileStatus {
        var record = stat()
        let failed = withCString { following ? stat($0, &record) : lstat($0, &record) } != 0
        if failed { throw .last }
        return FileStatus(record)
    }

    /// The target of a symbolic link.
    var link: [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 4_096)
        let count = withCString { path in
            buffer.withUnsafeMutableBufferPointer { bytes in
                bytes.withMemoryRebound(to: CChar.self) { readlink(path, $0.baseAddress.unsafelyUnwrapped, $0.count) }
            }
        }
        return count > 0 ? Array(buffer[..<count]) : nil
    }

    /// Where a file would be made that is written to this path: what links lead to, even if nothing is there yet.
    func followingLinks() throws(FileFailure) -> GuestPath {
        var path = self
        for _ in 0..<GuestPath.maximumLinks {
            let status: FileStatus
            do throws(FileFailure) {
                status = try path.status(following: false)
            } catch {
                if error.code == .notFound { return path }
                throw error
            }
            guard status.kind == .symbolicLink, let target = path.link else { return path }
            path = target.first == GuestPath.slash ? GuestPath(target) : path.parent.appending(target)
        }
        throw FileFailure(errno: ELOOP)
    }

    /// Makes the directory and those above it; false when it was there.
    func makeDirectories(mode: mode_t) throws(FileFailure) -> Bool {
        if withCString({ mkdir($0, mode) }) == 0 { return true }
        if errno == ENOENT {
            try makeDirectoriesAbove()
            if withCString({ mkdir($0, mode) }) == 0 { return true }
        }
        // `a/..`, too, is there as soon as `a` is.
        guard errno == EEXIST else { throw .last }
        guard try status(following: true).kind == .directory else { throw FileFailure(errno: EEXIST) }
        return false
    }

    /// Goes from level to level: a path can have 2,000 of them, a worker has a small stack, and the kernel would go through each path
    /// from its beginning.
    private func makeDirectoriesAbove() throws(FileFailure) {
        var directory = try GuestPath([GuestPath.slash]).open(O_RDONLY | O_DIRECTORY)
        defer { close(directory) }
        for name in bytes.split(separator: GuestPath.slash).dropLast() {
            let next = GuestPath(Array(name)).withCString { name in
                if mkdirat(directory, name, 0o755) != 0, errno != EEXIST { return Int32(-1) }
                return openat(directory, name, O_RDONLY | O_DIRECTORY | (agent_safe_open_flags() & ~O_NOFOLLOW))
            }
            guard next >= 0 else { throw .last }
            close(directory)
            directory = next
        }
    }

    /// Opens the file without ever waiting for one.
    func open(_ flags: Int32, mode: mode_t = 0, following: Bool = true) throws(FileFailure) -> Int32 {
        let safe = following ? agent_safe_open_flags() & ~O_NOFOLLOW : agent_safe_open_flags()
        let descriptor = withCString { Glibc.open($0, flags | safe, mode) }
        guard descriptor >= 0 else { throw .last }
        return descriptor
    }
}

extension FileStatus {
    init(_ record: stat) {
        let kind: Kind =
            switch record.st_mode & S_IFMT {
            case S_IFREG: .regular
            case S_IFDIR: .directory
            case S_IFLNK: .symbolicLink
            case S_IFIFO: .pipe
            case S_IFSOCK: .socket
            case S_IFBLK: .blockDevice
            default: .characterDevice
            }
        self.init(
            kind: kind,
            mode: UInt16(record.st_mode) & FileRequest.modeBits,
            user: record.st_uid,
            group: record.st_gid,
            size: UInt64(clamping: record.st_size),
            inode: UInt64(record.st_ino),
            modifiedSeconds: Int64(clamping: record.st_mtim.tv_sec).clampedTime,
            modifiedNanoseconds: UInt32(clamping: record.st_mtim.tv_nsec)
        )
    }

    /// - Throws: a failure when the descriptor is gone.
    init(of descriptor: Int32) throws(FileFailure) {
        var record = stat()
        guard fstat(descriptor, &record) == 0 else { throw .last }
        self.init(record)
    }
}

extension Int64 {
    /// The time, limited to what the protocol allows: a program can set a file's time to any value.
    fileprivate var clampedTime: Int64 { Swift.min(Swift.max(self, -(1 << 39)), 1 << 39) }
}
