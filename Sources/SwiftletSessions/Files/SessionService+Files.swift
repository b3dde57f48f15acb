// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import NIOCore
import SwiftletCore
import SwiftletVM

extension SessionService: FileAPI {
    /// How long a file may wait for its VM.
    private static let startLimit = Duration.seconds(120)
    /// Bytes of a listing's entries at most; no agent of ours sends more.
    private static let listingLimit = 8 << 20

    package func status(of file: FileLocation) async throws -> FileInfo {
        let transfer = try await begin(try file.request(.status), at: file)
        guard let status = try await transfer.done().status else { throw transfer.breach }
        return FileInfo(status)
    }

    package func read(_ file: FileLocation) async throws -> FileDownload {
        try await download(try file.request(.read), at: file)
    }

    package func pack(_ directory: FileLocation) async throws -> FileDownload {
        try await download(try directory.request(.pack), at: directory)
    }

    package func write(_ file: FileLocation, _ options: FileWriteOptions) async throws -> FileUpload {
        let request = try file.request(
            .write,
            flags: options.resumeAt == nil ? [] : .resumable,
            mode: options.mode.map { UInt16(clamping: $0) },
            offset: UInt64(clamping: options.resumeAt ?? 0),
            size: options.size.map { UInt64(clamping: $0) }
        )
        return try await upload(request, at: file)
    }

    package func unpack(_ directory: FileLocation, compressed: Bool) async throws -> FileUpload {
        let flags: FileRequest.Flags = compressed ? .compressed : []
        return try await upload(try directory.request(.unpack, flags: flags), at: directory)
    }

    package func list(_ directory: FileLocation, after: [UInt8], limit: Int) async throws -> DirectoryListing {
        let request = try directory.request(.list, limit: UInt32(clamping: limit), after: after)
        let transfer = try await begin(request, at: directory)
        var listing = DirectoryListing(entries: [], hasMore: false)
        var size = 0
        while true {
            switch try await transfer.next() {
            case .entries(let entries, let bytes):
                size += bytes
                guard listing.entries.count + entries.count <= limit, size <= Self.listingLimit else {
                    throw transfer.breach
                }
                listing.entries += entries.map(DirectoryListing.Entry.init)
                transfer.file.consumed(bytes)
            case .done(let done):
                listing.hasMore = done.flags.contains(.more)
                return listing
            case .opened, .content:
                throw transfer.breach
            }
        }
    }

    package func remove(_ file: FileLocation, recursive: Bool) async throws -> FileChange {
        let request = try file.request(.remove, flags: recursive ? .recursive : [])
        _ = try await begin(request, at: file).done()
        return FileChange(info: nil)
    }

    package func makeDirectory(_ directory: FileLocation, mode: Int?) async throws -> FileChange {
        let request = try directory.request(.makeDirectory, mode: mode.map { UInt16(clamping: $0) })
        return FileChange(try await begin(request, at: directory).done())
    }

    // MARK: Transfers

    /// Begins an operation in the session's VM, a new one if none lives.
    private func begin(_ request: FileRequest, at file: FileLocation) async throws -> FileTransfer {
        try checkAccepting()
        let session = try await enter(try await record(file.session, owner: file.owner))
        let limit = configuration.maximumTransfersPerSession
        guard await session.beginTransfer(limit: limit) else {
            await leave(session)
            let reason = "Session \(file.session) moves \(limit) files already; wait for some to end"
            throw SessionError.overloaded(reason: reason, retryAfter: 1)
        }
        let slot = TransferSlot { [self] in
            submit { [self] in
                await session.endTransfer()
                await leave(session)
            }
        }
        let vm = try await lease(session)
        do {
            guard let agent = try await vm.agent(until: time.now + Self.startLimit) else {
                throw SessionError.vmUnavailable(reason: "It is still starting")
            }
            return FileTransfer(file: agent.open(request), name: file.name, slot: slot)
        } catch let error as MicroVMError {
            throw SessionError.vmUnavailable(reason: error.description)
        }
    }

    private func download(_ request: FileRequest, at file: FileLocation) async throws -> FileDownload {
        let transfer = try await begin(request, at: file)
        let status = try await transfer.opened()
        let isFile = request.operation == .read
        return FileDownload(info: FileInfo(status)) { range, sink in
            let range = range ?? 0..<Int(status.size)
            if isFile {
                transfer.file.read(FileRange(offset: UInt64(range.lowerBound), length: UInt64(range.count)))
            }
            let count = try await transfer.send(to: sink)
            guard !isFile || count == range.count else {
                throw FileError(.wrongSize, "\(transfer.name) became shorter while it was read")
            }
        }
    }

    private func upload(_ request: FileRequest, at file: FileLocation) async throws -> FileUpload {
        let transfer = try await begin(request, at: file)
        _ = try await transfer.opened()
        return FileUpload {
            try await transfer.write($0)
        } finish: {
            transfer.file.finish()
            return FileChange(try await transfer.done())
        }
    }
}

extension FileLocation {
    /// What to ask of the guest's agent, which takes no more than this lets pass.
    fileprivate func request(
        _ operation: FileRequest.Operation,
        flags: FileRequest.Flags = [],
        mode: UInt16? = nil,
        offset: UInt64 = 0,
        size: UInt64? = nil,
        limit: UInt32 = FileRequest.maximumEntries,
        after: [UInt8] = []
    ) throws(FileError) -> FileRequest {
        do throws(ProtocolError) {
            return try FileRequest(
                operation,
                path: path,
                flags: flags,
                mode: mode,
                offset: offset,
                size: size,
                limit: limit,
                after: after
            )
        } catch {
            throw FileError(.nameTooLong, "\(name.prefix(512)): no file can be asked for so. \(error)")
        }
    }
}

/// A place among the transfers of a session, released with the last reference to it.
private final class TransferSlot: Sendable {
    private let release: @Sendable () -> Void

    init(release: @escaping @Sendable () -> Void) {
        self.release = release
    }

    deinit { release() }
}

/// An operation on a file, with its place among the session's transfers.
private struct FileTransfer: Sendable {
    let file: any GuestFile
    let name: String
    let slot: TransferSlot

    /// The guest said what no agent of ours says here.
    var breach: FileError { FileError(.other, "\(name): the guest's answer makes no sense") }

    /// The next event. What the guest refuses is thrown. A task that is cancelled gives the operation up, in the guest too.
    func next() async throws -> AgentFile.Event {
        do {
            var events = file.events.makeAsyncIterator()
            guard let event = try await events.next() else {
                // A cancelled task sees the end of the events.
                try Task.checkCancellation()
                throw breach
            }
            guard case .done(let done) = event, let failure = done.failure else { return event }
            throw FileError(failure, done, name: name)
        } catch let silence as AgentFile.Silence {
            let who = silence.agentAnswers ? "its file system" : "the microVM"
            throw FileError(.vmLost, "\(name): \(who) does not answer")
        } catch let error where !(error is FileError) && !(error is CancellationError) {
            // Only the end of the VM breaks the stream of events.
            throw FileError(.vmLost, "\(name): the microVM was lost meanwhile. \(error)")
        }
    }

    func opened() async throws -> FileStatus {
        guard case .opened(let status) = try await next() else { throw breach }
        return status
    }

    func done() async throws -> FileDone {
        guard case .done(let done) = try await next() else { throw breach }
        return done
    }

    /// Returns how many bytes went to the sink.
    func send(to sink: FileDownload.Sink) async throws -> Int {
        var count = 0
        while true {
            switch try await next() {
            case .content(let bytes):
                try await sink(ByteBuffer(bytes: bytes))
                count += bytes.count
                file.consumed(bytes.count)
            case .done: return count
            case .opened, .entries: throw breach
            }
        }
    }

    func write(_ bytes: ByteBuffer) async throws {
        do {
            try await file.write(bytes)
        } catch let error where !(error is CancellationError) {
            // The last event says why nothing more is taken.
            _ = try await done()
            throw breach
        }
    }
}

extension FileChange {
    fileprivate init(_ done: FileDone) {
        self.init(
            info: done.status.map(FileInfo.init),
            created: done.flags.contains(.created),
            size: Int(done.count),
            isPartial: done.flags.contains(.partial)
        )
    }
}

extension DirectoryListing.Entry {
    fileprivate init(_ entry: FileEntry) {
        self.init(
            name: entry.name,
            info: FileInfo(entry.status),
            target: entry.status.kind == .symbolicLink ? entry.target : nil
        )
    }
}

extension FileInfo {
    fileprivate init(_ status: FileStatus) {
        let kind: Kind =
            switch status.kind {
            case .regular: .file
            case .directory: .directory
            case .symbolicLink: .symlink
            case .pipe: .pipe
            case .socket: .socket
            case .characterDevice: .characterDevice
            case .blockDevice: .blockDevice
            }
        self.init(
            kind: kind,
            mode: Int(status.mode),
            size: Int(status.size),
            user: Int(status.user),
            group: Int(status.group),
            inode: status.inode,
            modifiedSeconds: Int(status.modifiedSeconds),
            modifiedNanoseconds: Int(status.modifiedNanoseconds)
        )
    }
}

extension FileError {
    fileprivate init(_ failure: FileDone.Failure, _ done: FileDone, name: String) {
        let code: Code =
            switch failure {
            case .notFound: .notFound
            case .notADirectory: .notADirectory
            case .isADirectory: .isADirectory
            case .notRegular: .notRegular
            case .noSpace: .noSpace
            case .notPermitted: .notPermitted
            case .nameTooLong: .nameTooLong
            case .exists: .exists
            case .notEmpty: .notEmpty
            case .wrongOffset: .wrongOffset
            case .tooLarge: .tooLarge
            case .busy: .busy
            case .tooManyLinks: .tooManyLinks
            case .wrongSize: .wrongSize
            case .programFailed: .archive
            case .cancelled, .other: .other
            }
        // The guest's words are shown, and no longer than is useful.
        self.init(code, "\(name.prefix(512)): \(done.message.prefix(1_200))", size: Int(done.count))
    }
}
