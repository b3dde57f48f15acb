// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Glibc

/// Sends a file to the host.
final class FileReading: FileOperation {
    private struct Opened: Sendable {
        let descriptor: Int32
        var status: FileStatus
        /// The content of a file whose size is not its length, such as those in /proc.
        var content: [UInt8]?
    }

    /// Bytes that are read of a file without a size, at most.
    private static let unsizedLimit = 4 << 20
    private static let chunk = 128 * 1024
    /// The size that `stat` reports for files in /sys, which are shorter.
    private static let page: UInt64 = 4_096

    private var opened: Opened?
    private var position: UInt64 = 0
    private var remaining: UInt64?
    private var sent: UInt64 = 0
    /// A piece is being read or sent; the next one must wait.
    private var isBusy = false

    override func start() {
        let path = path
        attempt { () throws(FileFailure) -> Opened in
            try FileReading.open(path)
        } then: { [self] opened in
            guard !isOver else { return FileReading.close(opened) }
            self.opened = opened
            stream.send(.opened, opened.status.payload)
        }
    }

    private static func open(_ path: GuestPath) throws(FileFailure) -> Opened {
        let descriptor = try path.open(O_RDONLY)
        do throws(FileFailure) {
            var status = try FileStatus(of: descriptor)
            switch status.kind {
            case .regular: break
            case .directory: throw FileFailure(errno: EISDIR)
            default: throw FileFailure(.notRegular, "It is no regular file")
            }
            guard status.size == 0 || status.size == page else {
                return Opened(descriptor: descriptor, status: status, content: nil)
            }
            let content = try readAll(descriptor)
            status.size = UInt64(content.count)
            return Opened(descriptor: descriptor, status: status, content: content)
        } catch {
            Glibc.close(descriptor)
            throw error
        }
    }

    private static func readAll(_ descriptor: Int32) throws(FileFailure) -> [UInt8] {
        var content: [UInt8] = []
        while true {
            let piece = try read(descriptor, chunk, at: nil)
            if piece.isEmpty { return content }
            content += piece
            guard content.count <= unsizedLimit else {
                throw FileFailure(.tooLarge, "It has no size and more than \(unsizedLimit) bytes")
            }
        }
    }

    private static func read(_ descriptor: Int32, _ count: Int, at offset: UInt64?) throws(FileFailure) -> [UInt8] {
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            var result: Int
            repeat {
                result =
                    if let offset {
                        pread(descriptor, buffer.baseAddress, count, off_t(offset))
                    } else {
                        Glibc.read(descriptor, buffer.baseAddress, count)
                    }
            } while result < 0 && errno == EINTR
            if result < 0 { failure = errno }
            filled = max(0, result)
        }
        if failure != 0 { throw FileFailure(errno: failure) }
        return bytes
    }

    override func send(_ range: FileRange) throws(ProtocolError) {
        guard opened != nil, remaining == nil else { throw .unexpectedFrame(.range, stream: stream.number) }
        position = range.offset
        remaining = range.length
        resume()
    }

    override func resume() {
        guard let opened, let remaining, !isBusy, !isOver else { return }
        guard remaining > 0 else { return finish() }
        guard stream.canSend else { return }
        let wanted = Int(min(remaining, UInt64(min(stream.available, FileReading.chunk))))
        if let content = opened.content {
            let start = Int(min(position, UInt64(content.count)))
            return deliver(Array(content[start..<min(start + wanted, content.count)]))
        }
        isBusy = true
        let offset = position
        attempt { () throws(FileFailure) -> [UInt8] in
            try FileReading.read(opened.descriptor, wanted, at: offset)
        } then: { [self] bytes in
            isBusy = false
            if isOver { return release() }
            deliver(bytes)
        }
    }

    private func deliver(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return finish() }
        position += UInt64(bytes.count)
        sent += UInt64(bytes.count)
        remaining = (remaining ?? 0) - UInt64(bytes.count)
        _ = stream.take(upTo: bytes.count)
        // Sending may make room, which calls back to `resume()`: what comes next must wait for the last of this.
        isBusy = true
        bytes.withUnsafeBytes { all in
            var rest = all[...]
            while !rest.isEmpty {
                let piece = rest.prefix(ProtocolLimits.maximumPayload - 1)
                rest = rest.dropFirst(piece.count)
                stream.send(UnsafeRawBufferPointer(rebasing: piece), channel: .content)
            }
        }
        isBusy = false
        resume()
    }

    private func finish() {
        end(FileDone(count: sent))
        release()
    }

    override func fail(_ failure: FileFailure) {
        isBusy = false
        super.fail(failure)
        release()
    }

    override func cancel() {
        super.cancel()
        if !isBusy { release() }
    }

    private func release() {
        if let opened { FileReading.close(opened) }
        opened = nil
    }

    private static func close(_ opened: Opened) { Glibc.close(opened.descriptor) }
}
