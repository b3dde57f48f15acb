// SPDX-License-Identifier: Apache-2.0

import NIOCore
import SwiftletSessions
import Synchronization

/// Files without VMs: one file, whose content and refusals a test chooses.
final class FakeFiles: FileAPI {
    private let failure: FileError?
    private let content: [UInt8]
    /// What was written and finished.
    let finished = Mutex<[UInt8]?>(nil)
    let options = Mutex<FileWriteOptions?>(nil)

    init(content: [UInt8] = [], failure: FileError? = nil) {
        self.content = content
        self.failure = failure
    }

    private var info: FileInfo { FileInfo(kind: .file, mode: 0o644, size: content.count, modifiedSeconds: 86_400) }

    func status(of file: FileLocation) async throws -> FileInfo {
        if let failure { throw failure }
        guard !file.name.hasSuffix(".partial") else { throw FileError(.notFound, "none") }
        return info
    }

    func read(_ file: FileLocation) async throws -> FileDownload {
        if let failure { throw failure }
        return FileDownload(info: info) { [content] range, sink in
            let bytes = content[(range?.lowerBound ?? 0)..<(range?.upperBound ?? content.count)]
            for byte in bytes { try await sink(ByteBuffer(bytes: [byte])) }
        }
    }

    func write(_ file: FileLocation, _ options: FileWriteOptions) async throws -> FileUpload {
        if let failure { throw failure }
        self.options.withLock { $0 = options }
        return upload()
    }

    private func upload() -> FileUpload {
        let received = Received()
        return FileUpload { bytes in
            received.bytes.withLock { $0 += bytes.readableBytesView }
        } finish: { [self] in
            let bytes = received.bytes.withLock { $0 }
            finished.withLock { $0 = bytes }
            return FileChange(
                info: FileInfo(kind: .file, mode: 0o644, size: bytes.count),
                created: true,
                size: bytes.count
            )
        }
    }

    private final class Received: Sendable {
        let bytes = Mutex<[UInt8]>([])
    }

    func list(_ directory: FileLocation, after: [UInt8], limit: Int) async throws -> DirectoryListing {
        if let failure { throw failure }
        return DirectoryListing(entries: [.init(name: [0xff], info: info)], hasMore: true)
    }

    func remove(_ file: FileLocation, recursive: Bool) async throws -> FileChange {
        if let failure { throw failure }
        return FileChange(info: nil)
    }

    func makeDirectory(_ directory: FileLocation, mode: Int?) async throws -> FileChange {
        if let failure { throw failure }
        return FileChange(info: FileInfo(kind: .directory, mode: mode ?? 0o755, size: 0), created: true)
    }

    func pack(_ directory: FileLocation) async throws -> FileDownload { try await read(directory) }

    func unpack(_ directory: FileLocation, compressed: Bool) async throws -> FileUpload {
        if let failure { throw failure }
        return upload()
    }
}
