// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgent
import Glibc

/// Receives a file from the host.
///
/// The content goes to a temporary file in the same directory, which is renamed when it is complete. Until then the path leads to the
/// previous file.
final class FileWriting: FileOperation {
    private struct Opened: Sendable {
        let descriptor: Int32
        /// The temporary file.
        let partial: GuestPath
        /// The path that the temporary file is renamed to.
        let target: GuestPath
        /// The file that is replaced.
        let existing: FileStatus?
        let isResumable: Bool
        var size: UInt64
    }

    /// Pages that wait for the disk at most, before a writer waits for it: the guest's memory stays its programs'.
    private static let writeBackStep: UInt64 = 8 << 20

    private var opened: Opened?
    private var window = ReceiveWindow()
    /// Payloads that wait for the one before to be written.
    private var pending: [[UInt8]] = []
    private var isBusy = false
    private var isComplete = false

    override func start() {
        let path = path
        let request = request
        isBusy = true
        attempt { () throws(FileFailure) -> Opened in
            try FileWriting.open(path, request)
        } then: { [self] opened in
            isBusy = false
            self.opened = opened
            guard !isOver else { return discard() }
            let status = FileStatus(kind: .regular, mode: 0, size: opened.size)
            stream.send(.opened, status.payload)
            proceed()
        }
    }

    // MARK: Opening

    private static func open(_ path: GuestPath, _ request: FileRequest) throws(FileFailure) -> Opened {
        guard path.name != [] else { throw FileFailure(errno: EISDIR) }
        let target = try path.followingLinks()
        let existing = try existingFile(at: target)
        _ = try target.parent.makeDirectories(mode: 0o755)
        let isResumable = request.flags.contains(.resumable)
        let partial = target.parent.appending(isResumable ? resumableName(target) : randomName())
        let flags = O_WRONLY | O_CREAT | (isResumable ? 0 : O_EXCL)
        let descriptor = try partial.open(flags, mode: 0o600, following: false)
        var opened = Opened(
            descriptor: descriptor,
            partial: partial,
            target: target,
            existing: existing,
            isResumable: isResumable,
            size: 0
        )
        guard isResumable else { return opened }
        do throws(FileFailure) {
            opened.size = try resume(descriptor, at: request.offset)
            return opened
        } catch {
            close(descriptor)
            throw error
        }
    }

    private static func existingFile(at target: GuestPath) throws(FileFailure) -> FileStatus? {
        do throws(FileFailure) {
            let status = try target.status(following: false)
            switch status.kind {
            case .regular: return status
            case .directory: throw FileFailure(errno: EISDIR)
            default: throw FileFailure(.notRegular, "It is no regular file")
            }
        } catch {
            if error.code == .notFound { return nil }
            throw error
        }
    }

    /// Goes on with a partial file.
    private static func resume(_ descriptor: Int32, at offset: UInt64) throws(FileFailure) -> UInt64 {
        let status = try FileStatus(of: descriptor)
        guard status.kind == .regular else { throw FileFailure(.notRegular, "The partial file is no regular file") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw FileFailure(.busy, "Another upload to this path goes on")
        }
        if offset == 0 {
            guard ftruncate(descriptor, 0) == 0 else { throw .last }
            return 0
        }
        guard status.size == offset else {
            let words = "The partial file has \(status.size) bytes"
            throw FileFailure(.wrongOffset, words, count: status.size)
        }
        return offset
    }

    private static func randomName() -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return Array(".swiftlet-\(String(generator.next(), radix: 36)).partial".utf8)
    }

    private static func resumableName(_ target: GuestPath) -> [UInt8] {
        Array(".".utf8) + target.name + Array(".partial".utf8)
    }

    // MARK: Content

    override func receive(_ payload: [UInt8]) throws(ProtocolError) {
        guard !isComplete else { throw .unexpectedFrame(.data, stream: stream.number) }
        try window.receive(payload.count - 1, stream: stream.number)
        pending.append(payload)
        proceed()
    }

    override func receiveEnd() throws(ProtocolError) {
        guard !isComplete else { throw .unexpectedFrame(.end, stream: stream.number) }
        isComplete = true
        proceed()
    }

    private func proceed() {
        guard let opened, !isBusy, !isOver else { return }
        if pending.isEmpty {
            if isComplete { commit(opened) }
            return
        }
        let pieces = pending
        pending = []
        isBusy = true
        let limit = request.size
        attempt { () throws(FileFailure) -> UInt64 in
            try FileWriting.write(pieces, to: opened, limit: limit)
        } then: { [self] size in
            isBusy = false
            self.opened?.size = size
            guard !isOver else { return discard() }
            let count = pieces.reduce(0) { $0 + $1.count - 1 }
            if let credit = window.consume(count) {
                var writer = WireWriter()
                writer.write(credit)
                stream.send(.credit, writer.bytes)
            }
            proceed()
        }
    }

    /// Returns the file's new size.
    private static func write(_ pieces: [[UInt8]], to opened: Opened, limit: UInt64?) throws(FileFailure) -> UInt64 {
        var size = opened.size
        for piece in pieces {
            let count = UInt64(piece.count - 1)
            if let limit, size + count > limit { throw FileFailure(.wrongSize, "There is more content than announced") }
            try write(piece, to: opened.descriptor, at: size)
            let before = size / writeBackStep
            size += count
            if size / writeBackStep > before {
                writeBack(opened.descriptor, upTo: size / writeBackStep * writeBackStep)
            }
        }
        return size
    }

    /// Sends the last step of a large file to the disk, and waits for the one before.
    private static func writeBack(_ descriptor: Int32, upTo end: UInt64) {
        agent_write_back(descriptor, Int64(end - writeBackStep), Int64(writeBackStep), 0)
        if end >= 2 * writeBackStep {
            agent_write_back(descriptor, Int64(end - 2 * writeBackStep), Int64(writeBackStep), 1)
        }
    }

    private static func write(_ payload: [UInt8], to descriptor: Int32, at offset: UInt64) throws(FileFailure) {
        // The first byte names the channel.
        var done = 1
        while done < payload.count {
            let count = payload.withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress?.advanced(by: done), $0.count - done, off_t(offset) + done - 1)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw .last }
            done += count
        }
    }

    // MARK: The end

    private func commit(_ opened: Opened) {
        isBusy = true
        let request = request
        attempt { () throws(FileFailure) -> FileDone in
            try FileWriting.commit(opened, request)
        } then: { [self] done in
            isBusy = false
            self.opened = nil
            end(done)
        }
    }

    private static func commit(_ opened: Opened, _ request: FileRequest) throws(FileFailure) -> FileDone {
        if let size = request.size, opened.size != size {
            guard opened.isResumable else {
                throw FileFailure(.wrongSize, "\(opened.size) bytes of \(size) came")
            }
            close(opened.descriptor)
            return FileDone(flags: .partial, count: opened.size)
        }
        let mode = request.mode ?? opened.existing?.mode ?? 0o644
        if let existing = opened.existing {
            guard fchown(opened.descriptor, existing.user, existing.group) == 0 else { throw .last }
        }
        // After the owner, whose change takes setuid away.
        guard fchmod(opened.descriptor, mode_t(mode)) == 0 else { throw .last }
        let renamed = opened.partial.withCString { from in opened.target.withCString { rename(from, $0) } } == 0
        guard renamed else { throw .last }
        let status = try FileStatus(of: opened.descriptor)
        close(opened.descriptor)
        return FileDone(flags: opened.existing == nil ? .created : [], count: opened.size, status: status)
    }

    override func fail(_ failure: FileFailure) {
        isBusy = false
        discard(then: failure.done)
    }

    override func cancel() {
        if isBusy {
            super.cancel()
        } else {
            discard(then: FileDone(failure: .cancelled))
        }
    }

    /// Removes the temporary file unless it is resumable; then ends the stream, if it has not ended.
    private func discard(then done: FileDone = FileDone(failure: .cancelled)) {
        guard let opened else { return end(done) }
        self.opened = nil
        isBusy = true
        workers.run {
            if !opened.isResumable { _ = opened.partial.withCString { unlink($0) } }
            close(opened.descriptor)
        } then: { [self] in
            end(done)
        }
    }
}
