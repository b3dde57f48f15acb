// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import SwiftletCore
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// The bytes of one output stream: in memory while they are few, in a file when they are many or when they must outlive the server.
///
/// Appended to by one task and read by any number, while it is written and afterwards. No lock is held over a read or a write of
/// the disk: readers take what the file holds so far, and writers of the file wait for each other without holding a thread.
package final class OutputLog: Sendable {
    private struct State {
        var memory: [UInt8] = []
        var file: Int32?
        var fileBytes = 0
        var dropped = 0
        /// The memory's bytes are being moved into the file: none may be added to them.
        var isSpilling = false

        var count: Int { memory.count + fileBytes }
    }

    private let state: Mutex<State>
    private let path: String?
    private let memoryLimit: Int
    private let limit: Int
    private let budget: OutputBudget?
    /// Held by the task that writes to the file.
    private let fileWriter = AsyncSemaphore()

    /// An empty log.
    ///
    /// - Parameters:
    ///   - path: the file that is made when `memoryLimit` is passed or at ``persist()``. Whoever owns the log removes it.
    ///   - memoryLimit: bytes kept in memory.
    ///   - limit: bytes kept in all; what follows is counted and dropped.
    ///   - budget: what all logs may take together.
    package init(path: String, memoryLimit: Int = 64 * 1024, limit: Int, budget: OutputBudget? = nil) {
        state = Mutex(State())
        self.budget = budget
        self.path = path
        self.memoryLimit = memoryLimit
        self.limit = limit
    }

    /// A log that is complete.
    package init(_ bytes: [UInt8], dropped: Int = 0) {
        state = Mutex(State(memory: bytes, dropped: dropped))
        path = nil
        budget = nil
        memoryLimit = bytes.count
        limit = bytes.count
    }

    /// A complete log in a file; nil when the file is not there.
    package init?(contentsOf path: String, dropped: Int = 0) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        var information = stat()
        guard fstat(descriptor, &information) == 0 else {
            close(descriptor)
            return nil
        }
        let size = Int(information.st_size)
        state = Mutex(State(file: descriptor, fileBytes: size, dropped: dropped))
        self.path = nil
        budget = nil
        memoryLimit = 0
        limit = size
    }

    deinit {
        state.withLock { state in
            if let file = state.file { close(file) }
        }
    }

    /// Bytes that can be read.
    package var count: Int { state.withLock { $0.count } }

    /// Bytes that were dropped at the limit or for lack of disk.
    package var droppedBytes: Int { state.withLock { $0.dropped } }

    /// The bytes, if no file holds them.
    package var inMemory: [UInt8]? { state.withLock { $0.file == nil ? $0.memory : nil } }

    // MARK: Writing

    /// Adds bytes. What does not fit, or cannot be written, is counted in ``droppedBytes``.
    package func append(_ bytes: ArraySlice<UInt8>) async throws {
        let room = state.withLock { state in
            // A hole in the output would be a lie: after the first loss everything is dropped.
            let room = state.dropped == 0 ? min(bytes.count, max(0, limit - state.count)) : 0
            state.dropped += bytes.count - room
            return room
        }
        guard room > 0 else { return }
        let kept = try await keep(bytes.prefix(room))
        state.withLock { $0.dropped += room - kept }
    }

    /// Adds all of the bytes or none: for what is worthless when it is cut.
    package func appendWhole(_ bytes: [UInt8]) async throws -> Bool {
        guard bytes.count <= limit - count else { return false }
        let kept = try await keep(bytes[...])
        guard kept < bytes.count else { return true }
        budget?.giveBack(kept)
        state.withLock { state in
            if state.file == nil { state.memory.removeLast(kept) } else { state.fileBytes -= kept }
        }
        return false
    }

    /// Moves what is in memory into the file, where it outlives the process, and keeps it there from now on.
    package func persist() async throws {
        guard state.withLock({ $0.file == nil && !$0.memory.isEmpty }) else { return }
        try await writingFile { _ = self.spill() }
    }

    /// Returns how many of the bytes were kept.
    private func keep(_ bytes: ArraySlice<UInt8>) async throws -> Int {
        let granted = budget?.take(bytes.count) ?? bytes.count
        let rest = bytes.prefix(granted)
        do {
            let kept = appendToMemory(rest) ? rest.count : try await writingFile { self.writeOrSpill(rest) }
            budget?.giveBack(granted - kept)
            return kept
        } catch {
            budget?.giveBack(granted)
            throw error
        }
    }

    /// False when the bytes belong into the file.
    private func appendToMemory(_ bytes: ArraySlice<UInt8>) -> Bool {
        state.withLock { state in
            guard state.file == nil, !state.isSpilling, state.memory.count + bytes.count <= memoryLimit else {
                return false
            }
            state.memory.append(contentsOf: bytes)
            return true
        }
    }

    /// Runs a body that writes to the file, on a thread that may wait for the disk.
    private func writingFile<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async throws -> Value {
        guard await fileWriter.acquire() == .acquired else { throw CancellationError() }
        defer { fileWriter.release() }
        return try await NIOThreadPool.singleton.runIfActive(body)
    }

    /// Writes to the file, which is made if it is not there. Without a file what fits into memory is kept there.
    private func writeOrSpill(_ bytes: ArraySlice<UInt8>) -> Int {
        guard spill() else {
            return state.withLock { state in
                let head = bytes.prefix(max(0, memoryLimit - state.memory.count))
                state.memory.append(contentsOf: head)
                return head.count
            }
        }
        let (file, offset) = state.withLock { ($0.file, $0.fileBytes) }
        guard let file else { return 0 }
        let written = Self.write(bytes, to: file, at: offset)
        state.withLock { $0.fileBytes += written }
        return written
    }

    /// Moves the memory's bytes into the file. False when there can be no file: then they stay where they are.
    private func spill() -> Bool {
        guard state.withLock({ $0.file == nil }) else { return true }
        guard let path else { return false }
        let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return false }
        let memory = state.withLock { state in
            state.isSpilling = true
            return state.memory
        }
        let isWritten = Self.write(memory[...], to: descriptor, at: 0) == memory.count
        state.withLock { state in
            state.isSpilling = false
            guard isWritten else { return }
            state.file = descriptor
            state.fileBytes = memory.count
            state.memory = []
        }
        if !isWritten {
            close(descriptor)
            unlink(path)
        }
        return isWritten
    }

    /// Returns how many bytes were written.
    private static func write(_ bytes: ArraySlice<UInt8>, to file: Int32, at offset: Int) -> Int {
        var done = 0
        bytes.withUnsafeBytes { raw in
            while done < raw.count {
                let count = pwrite(file, raw.baseAddress?.advanced(by: done), raw.count - done, off_t(offset + done))
                guard count > 0 else {
                    if count < 0, errno == EINTR { continue }
                    return
                }
                done += count
            }
        }
        return done
    }

    // MARK: Reading

    /// Reads up to `count` bytes at an offset; empty at the end. Blocks on the disk for what is in the file.
    package func read(at offset: Int, upTo count: Int) -> [UInt8] {
        let (file, end, memory) = state.withLock { state -> (Int32?, Int, ArraySlice<UInt8>) in
            guard state.file == nil, offset < state.memory.count else { return (state.file, state.fileBytes, []) }
            return (nil, 0, state.memory[offset..<min(offset + count, state.memory.count)])
        }
        // The file stays open as long as the log, which the caller holds.
        guard let file else { return Array(memory) }
        let wanted = min(count, end - offset)
        guard wanted > 0 else { return [] }
        return [UInt8](unsafeUninitializedCapacity: wanted) { buffer, filled in
            filled = max(0, pread(file, buffer.baseAddress, wanted, off_t(offset)))
        }
    }
}

/// The first part of a log, whatever is written to it later.
package struct OutputView: Sendable {
    private static let piece = 64 * 1024

    private let log: OutputLog
    /// Bytes that can be read.
    package let count: Int
    /// Bytes that were not kept.
    package let droppedBytes: Int

    /// All that a log has at this moment.
    package init(_ log: OutputLog) {
        self.log = log
        count = log.count
        droppedBytes = log.droppedBytes
    }

    /// Reads up to `count` bytes at an offset; empty at the end. Blocks on the disk for what is in a file.
    package func read(at offset: Int, upTo count: Int) -> [UInt8] {
        log.read(at: offset, upTo: max(0, min(count, self.count - offset)))
    }

    /// Reads a range piece by piece, on a thread that may wait for the disk.
    ///
    /// - Throws: `ChannelError.eof` when the file has become shorter; whatever the body throws.
    package func forEachPiece(
        of range: Range<Int>,
        _ body: ([UInt8]) async throws -> Void
    ) async throws {
        var offset = range.lowerBound
        while offset < range.upperBound {
            let (start, count) = (offset, min(Self.piece, range.upperBound - offset))
            let bytes = try await NIOThreadPool.singleton.runIfActive { read(at: start, upTo: count) }
            guard !bytes.isEmpty else { throw ChannelError.eof }
            offset += bytes.count
            try await body(bytes)
        }
    }
}
