// SPDX-License-Identifier: Apache-2.0

/// Opens a stream for one operation on one of the guest's files.
package struct FileRequest: WireMessage {
    package enum Operation: UInt8, Sendable, CaseIterable {
        /// `opened`, then, after the host's `range`, its bytes as `data`, then `done`.
        case read = 1
        /// `opened`; the host sends `data`, then `end`; then `done`. Nothing is at the path before that.
        case write = 2
        /// The entries of a directory as `data`, each frame whole `FileEntry` messages, then `done`.
        case list = 3
        /// `done` with what is at the path.
        case status = 4
        /// Removes what is at the path, a link and not what it leads to; then `done`.
        case remove = 5
        /// Makes a directory and those above it; then `done`.
        case makeDirectory = 6
        /// A directory's tree as a tar archive, in `data`; then `done`.
        case pack = 7
        /// The host sends a tar archive as `data`, then `end`; it is unpacked into the directory, which is made; then `done`.
        case unpack = 8
    }

    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        /// A write goes on at `offset` of a partial file that is kept until `size` bytes are there.
        package static let resumable = Flags(rawValue: 1 << 0)
        /// A directory is removed with all that is in it.
        package static let recursive = Flags(rawValue: 1 << 1)
        /// The archive to unpack is compressed by gzip.
        package static let compressed = Flags(rawValue: 1 << 2)
    }

    package let operation: Operation
    /// Absolute, at most ``maximumPath`` bytes of any kind but NUL.
    package let path: [UInt8]
    package let flags: Flags
    /// Permissions of what is made; nil for those of what it replaces, or the usual ones.
    package let mode: UInt16?
    /// Where a resumed write goes on.
    package let offset: UInt64
    /// How many bytes the whole file has; nil when the writer does not know.
    package let size: UInt64?
    /// How many entries a listing may have, 1...``maximumEntries``.
    package let limit: UInt32
    /// A listing begins behind this name, of ``FileEntry/maximumName`` bytes at most; empty for its beginning.
    package let after: [UInt8]

    package static let maximumPath = 4_095
    package static let maximumEntries: UInt32 = 10_000
    /// Permission bits with setuid, setgid and sticky.
    package static let modeBits: UInt16 = 0o7777

    private static let unset: UInt16 = .max

    /// - Throws: `ProtocolError` for a field that the agent would refuse. A request always fits into a frame.
    package init(
        _ operation: Operation,
        path: [UInt8],
        flags: Flags = [],
        mode: UInt16? = nil,
        offset: UInt64 = 0,
        size: UInt64? = nil,
        limit: UInt32 = maximumEntries,
        after: [UInt8] = []
    ) throws(ProtocolError) {
        self.operation = operation
        self.path = path
        self.flags = flags
        self.mode = mode
        self.offset = offset
        self.size = size
        self.limit = limit
        self.after = after
        try check()
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        let code = try reader.read(UInt8.self)
        guard let operation = Operation(rawValue: code) else {
            throw .invalidValue(field: "operation", value: UInt64(code))
        }
        self.operation = operation
        path = try reader.readBytes()
        flags = Flags(rawValue: try reader.read())
        let bits: UInt16 = try reader.read()
        mode = bits == Self.unset ? nil : bits
        offset = try reader.read()
        let size: UInt64 = try reader.read()
        self.size = size == .max ? nil : size
        limit = try reader.read()
        after = try reader.readBytes()
        try check()
    }

    private func check() throws(ProtocolError) {
        guard path.first == UInt8(ascii: "/"), path.count <= Self.maximumPath, !path.contains(0) else {
            throw .invalidValue(field: "path", value: UInt64(path.count))
        }
        guard mode ?? 0 <= Self.modeBits else { throw .invalidValue(field: "mode", value: UInt64(mode ?? 0)) }
        guard offset <= UInt64(Int64.max) else { throw .invalidValue(field: "offset", value: offset) }
        guard (1...Self.maximumEntries).contains(limit) else {
            throw .invalidValue(field: "limit", value: UInt64(limit))
        }
        guard after.count <= FileEntry.maximumName else {
            throw .invalidValue(field: "after", value: UInt64(after.count))
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.write(operation.rawValue)
        writer.write(path)
        writer.write(flags.rawValue)
        writer.write(mode ?? Self.unset)
        writer.write(offset)
        writer.write(size ?? .max)
        writer.write(limit)
        writer.write(after)
    }
}

/// The type and attributes of a file, from `stat`.
package struct FileStatus: WireMessage {
    package enum Kind: UInt8, Sendable, CaseIterable {
        case regular = 1
        case directory = 2
        case symbolicLink = 3
        case pipe = 4
        case socket = 5
        case characterDevice = 6
        case blockDevice = 7
    }

    package var kind: Kind
    /// Permissions with setuid, setgid and sticky.
    package var mode: UInt16
    package var user: UInt32
    package var group: UInt32
    package var size: UInt64
    package var inode: UInt64
    /// When the content was changed: seconds since 1970, UTC, and nanoseconds.
    package var modifiedSeconds: Int64
    package var modifiedNanoseconds: UInt32

    package init(
        kind: Kind,
        mode: UInt16,
        user: UInt32 = 0,
        group: UInt32 = 0,
        size: UInt64,
        inode: UInt64 = 0,
        modifiedSeconds: Int64 = 0,
        modifiedNanoseconds: UInt32 = 0
    ) {
        self.kind = kind
        self.mode = mode
        self.user = user
        self.group = group
        self.size = size
        self.inode = inode
        self.modifiedSeconds = modifiedSeconds
        self.modifiedNanoseconds = modifiedNanoseconds
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        let code = try reader.read(UInt8.self)
        guard let kind = Kind(rawValue: code) else { throw .invalidValue(field: "kind", value: UInt64(code)) }
        self.kind = kind
        mode = try reader.read()
        user = try reader.read()
        group = try reader.read()
        size = try reader.read()
        inode = try reader.read()
        modifiedSeconds = try reader.read()
        modifiedNanoseconds = try reader.read()
        // The host calculates with these.
        guard mode <= FileRequest.modeBits else { throw .invalidValue(field: "mode", value: UInt64(mode)) }
        guard size <= UInt64(Int64.max) else { throw .invalidValue(field: "size", value: size) }
        guard modifiedNanoseconds < 1_000_000_000, modifiedSeconds.magnitude < 1 << 40 else {
            throw .invalidValue(field: "time", value: UInt64(modifiedNanoseconds))
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.write(kind.rawValue)
        writer.write(mode)
        writer.write(user)
        writer.write(group)
        writer.write(size)
        writer.write(inode)
        writer.write(modifiedSeconds)
        writer.write(modifiedNanoseconds)
    }
}

/// One name in a directory.
package struct FileEntry: WireMessage {
    /// 1...255 bytes of any kind but NUL and `/`.
    package var name: [UInt8]
    package var status: FileStatus
    /// Where a symbolic link leads; empty for anything else.
    package var target: [UInt8]

    package static let maximumName = 255

    package init(name: [UInt8], status: FileStatus, target: [UInt8] = []) {
        self.name = name
        self.status = status
        self.target = target
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        name = try reader.readBytes()
        guard (1...Self.maximumName).contains(name.count), !name.contains(0), !name.contains(UInt8(ascii: "/")) else {
            throw .invalidValue(field: "name", value: UInt64(name.count))
        }
        status = try FileStatus(from: &reader)
        target = try reader.readBytes()
        guard target.count <= FileRequest.maximumPath + 1 else {
            throw .invalidValue(field: "target", value: UInt64(target.count))
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.write(name)
        status.write(to: &writer)
        writer.write(target)
    }

    /// The entries in a frame's content.
    package static func all(in content: [UInt8]) throws(ProtocolError) -> [FileEntry] {
        var reader = WireReader(content)
        var entries: [FileEntry] = []
        while !reader.isAtEnd { entries.append(try FileEntry(from: &reader)) }
        return entries
    }
}

/// Which bytes of an open file the host wants.
package struct FileRange: WireMessage {
    package var offset: UInt64
    /// How many bytes; fewer are sent when the file ends before.
    package var length: UInt64

    package init(offset: UInt64, length: UInt64) {
        self.offset = offset
        self.length = length
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        offset = try reader.read()
        length = try reader.read()
        guard offset <= UInt64(Int64.max), length <= UInt64(Int64.max) else {
            throw .invalidValue(field: "range", value: max(offset, length))
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.write(offset)
        writer.write(length)
    }
}

/// How an operation on a file ended.
package struct FileDone: WireMessage {
    package enum Failure: UInt8, Sendable, CaseIterable {
        case notFound = 1
        case notADirectory = 2
        case isADirectory = 3
        /// A pipe, a device or a socket.
        case notRegular = 4
        case noSpace = 5
        case notPermitted = 6
        case nameTooLong = 7
        case exists = 8
        case notEmpty = 9
        /// A resumed write does not go on where the partial file ends; `count` says where that is.
        case wrongOffset = 10
        case tooLarge = 11
        case busy = 12
        case tooManyLinks = 13
        /// The content's length is not what was announced.
        case wrongSize = 14
        /// A program that packs, unpacks or removes failed.
        case programFailed = 15
        case cancelled = 16
        /// Anything else; the message says what.
        case other = 17
    }

    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        /// Nothing was at the path before.
        package static let created = Flags(rawValue: 1 << 0)
        /// A resumable write has not all bytes yet.
        package static let partial = Flags(rawValue: 1 << 1)
        /// A listing has more entries.
        package static let more = Flags(rawValue: 1 << 2)
    }

    package var failure: Failure?
    /// The error message of a failure.
    package var message: String
    package var flags: Flags
    /// Bytes that a read sent, or that a written or partial file has.
    package var count: UInt64
    /// The status of the file at the path, for the operations that report it.
    package var status: FileStatus?

    package init(
        failure: Failure? = nil,
        message: String = "",
        flags: Flags = [],
        count: UInt64 = 0,
        status: FileStatus? = nil
    ) {
        self.failure = failure
        self.message = message
        self.flags = flags
        self.count = count
        self.status = status
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        let code = try reader.read(UInt8.self)
        failure = Failure(rawValue: code)
        guard failure != nil || code == 0 else { throw .invalidValue(field: "failure", value: UInt64(code)) }
        message = try reader.readString()
        flags = Flags(rawValue: try reader.read())
        count = try reader.read()
        guard count <= UInt64(Int64.max) else { throw .invalidValue(field: "count", value: count) }
        switch try reader.read(UInt8.self) {
        case 0: status = nil
        case 1: status = try FileStatus(from: &reader)
        case let other: throw .invalidValue(field: "presence", value: UInt64(other))
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.write(failure?.rawValue ?? 0)
        writer.write(message)
        writer.write(flags.rawValue)
        writer.write(count)
        writer.write(UInt8(status == nil ? 0 : 1))
        status?.write(to: &writer)
    }
}
