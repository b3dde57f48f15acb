// SPDX-License-Identifier: Apache-2.0

package import NIOCore
package import SwiftletCore

/// A file in a session's VM.
package struct FileLocation: Sendable {
    package var session: SessionID
    package var owner: UserID
    /// Absolute; bytes of any kind but NUL, at most as ``Limits/pathBytes`` has.
    package var path: [UInt8]

    package init(session: SessionID, owner: UserID, path: [UInt8]) {
        self.session = session
        self.owner = owner
        self.path = path
    }

    /// The path for a person to read.
    package var name: String { String(decoding: path, as: UTF8.self) }
}

/// What a file is.
package struct FileInfo: Equatable, Sendable {
    package enum Kind: String, Sendable {
        case file
        case directory
        case symlink
        case pipe
        case socket
        case characterDevice = "character_device"
        case blockDevice = "block_device"
    }

    package var kind: Kind
    /// Permissions with setuid, setgid and sticky.
    package var mode: Int
    package var size: Int
    package var user: Int
    package var group: Int
    package var inode: UInt64
    /// When the content was changed: seconds since 1970, UTC, and nanoseconds.
    package var modifiedSeconds: Int
    package var modifiedNanoseconds: Int

    package init(
        kind: Kind,
        mode: Int,
        size: Int,
        user: Int = 0,
        group: Int = 0,
        inode: UInt64 = 0,
        modifiedSeconds: Int = 0,
        modifiedNanoseconds: Int = 0
    ) {
        self.kind = kind
        self.mode = mode
        self.size = size
        self.user = user
        self.group = group
        self.inode = inode
        self.modifiedSeconds = modifiedSeconds
        self.modifiedNanoseconds = modifiedNanoseconds
    }
}

/// A page of a directory.
package struct DirectoryListing: Sendable {
    package struct Entry: Sendable {
        package var name: [UInt8]
        package var info: FileInfo
        /// Where a symbolic link leads.
        package var target: [UInt8]?

        package init(name: [UInt8], info: FileInfo, target: [UInt8]? = nil) {
            self.name = name
            self.info = info
            self.target = target
        }
    }

    /// In the order of their names' bytes.
    package var entries: [Entry]
    /// Whether there are more behind the last.
    package var hasMore: Bool

    package init(entries: [Entry], hasMore: Bool) {
        self.entries = entries
        self.hasMore = hasMore
    }
}

/// How a file is to be written.
package struct FileWriteOptions: Sendable {
    /// nil for the mode of what is replaced, or 0644.
    package var mode: Int?
    /// Bytes of the whole file; nil when nobody knows.
    package var size: Int?
    /// Where a partial file goes on, which is kept until it is whole; nil for a file that comes whole or not at all.
    package var resumeAt: Int?

    package init(mode: Int? = nil, size: Int? = nil, resumeAt: Int? = nil) {
        self.mode = mode
        self.size = size
        self.resumeAt = resumeAt
    }
}

/// What became of a file that was written, made or removed.
package struct FileChange: Sendable {
    /// nil while a file is partial, and after an archive was unpacked.
    package var info: FileInfo?
    /// Nothing was there before.
    package var created: Bool
    /// Bytes that are there, of a partial file too.
    package var size: Int
    package var isPartial: Bool

    package init(info: FileInfo?, created: Bool = false, size: Int = 0, isPartial: Bool = false) {
        self.info = info
        self.created = created
        self.size = size
        self.isPartial = isPartial
    }
}

/// A file, or an archive of a directory, on its way out. The guest stops when nobody holds it any more.
package struct FileDownload: Sendable {
    package typealias Sink = (ByteBuffer) async throws -> Void

    /// What is open; its size is that of the content.
    package let info: FileInfo
    private let body: @Sendable (Range<Int>?, Sink) async throws -> Void

    package init(info: FileInfo, body: @escaping @Sendable (Range<Int>?, Sink) async throws -> Void) {
        self.info = info
        self.body = body
    }

    /// Gives the content, or a range of it, to a sink, piece by piece; once.
    ///
    /// - Throws: `FileError` when the content ended early.
    package func send(_ range: Range<Int>? = nil, to sink: Sink) async throws {
        try await body(range, sink)
    }
}

/// A file on its way in. It is given up when nobody holds it any more before ``finish()``.
package struct FileUpload: Sendable {
    private let writing: @Sendable (ByteBuffer) async throws -> Void
    private let finishing: @Sendable () async throws -> FileChange

    package init(
        write: @escaping @Sendable (ByteBuffer) async throws -> Void,
        finish: @escaping @Sendable () async throws -> FileChange
    ) {
        writing = write
        finishing = finish
    }

    /// Sends bytes; returns when the guest has room for more.
    ///
    /// - Throws: `FileError` when the guest refuses.
    package func write(_ bytes: ByteBuffer) async throws { try await writing(bytes) }

    /// Puts the file into its place.
    package func finish() async throws -> FileChange { try await finishing() }
}

/// An operation on a file that was refused or failed.
package struct FileError: Error, Sendable, CustomStringConvertible {
    package enum Code: Sendable {
        case notFound
        case notADirectory
        case isADirectory
        case notRegular
        case noSpace
        case notPermitted
        case nameTooLong
        case exists
        case notEmpty
        /// `size` bytes of the partial file are there.
        case wrongOffset
        case tooLarge
        case busy
        case tooManyLinks
        case wrongSize
        case archive
        case vmLost
        case other
    }

    package var code: Code
    package var message: String
    package var size: Int

    package init(_ code: Code, _ message: String, size: Int = 0) {
        self.code = code
        self.message = message
        self.size = size
    }

    package var description: String { message }
}

/// What the HTTP routes ask of files in sessions' VMs, which are spawned if none lives; `SessionService` is the real one.
///
/// Everything throws `SessionError` for the session's sake and `FileError` for the file's.
package protocol FileAPI: Sendable {
    /// What is at a path, links followed.
    func status(of file: FileLocation) async throws -> FileInfo

    /// Opens a file.
    func read(_ file: FileLocation) async throws -> FileDownload

    /// Begins to write a file; what was there stays until it is finished.
    func write(_ file: FileLocation, _ options: FileWriteOptions) async throws -> FileUpload

    /// The entries of a directory behind a name.
    func list(_ directory: FileLocation, after: [UInt8], limit: Int) async throws -> DirectoryListing

    /// Removes what is at a path; a directory that is not empty only with all that is in it.
    func remove(_ file: FileLocation, recursive: Bool) async throws -> FileChange

    /// Makes a directory and those above it.
    func makeDirectory(_ directory: FileLocation, mode: Int?) async throws -> FileChange

    /// A directory's tree as a tar archive.
    func pack(_ directory: FileLocation) async throws -> FileDownload

    /// Unpacks a tar archive into a directory, which is made.
    func unpack(_ directory: FileLocation, compressed: Bool) async throws -> FileUpload
}
