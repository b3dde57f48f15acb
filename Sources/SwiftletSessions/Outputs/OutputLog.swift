// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// The bytes of one output stream: in memory while they are few, in a file when they are many or when they must outlive the server.
///
/// Written by one task and read by any number, while it is written and afterwards.
package final class OutputLog: Sendable {
    private struct State {
        var memory: [UInt8] = []
        var file: Int32?
        var fileBytes = 0
        var dropped = 0
    }

    private let state: Mutex<State>
    private let path: String?
    private let memoryLimit: Int
    private let limit: Int
    private let budget: OutputBudget?

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
    package var count: Int { state.withLock { $0.memory.count + $0.fileBytes } }

    /// Bytes that were dropped at the limit or for lack of disk.
    package var droppedBytes: Int { state.withLock { $0.dropped } }

    /// The bytes, if no file holds them.
    package var inMemory: [UInt8]? { state.withLock { $0.file == nil ? $0.memory : nil } }

    /// Whether `append` of so many bytes would touch no file.
    package func fitsInMemory(_ bytes: Int) -> Bool {
        state.withLock { $0.file == nil && $0.memory.count + bytes <= memoryLimit }
    }

    /// Adds bytes. What does not fit, or cannot be written, is counted in ``droppedBytes``. Blocks on the disk for what goes to the file.
    package func append(_ bytes: ArraySlice<UInt8>) {
        state.withLock { state in
            // A hole in the output would be a lie: after the first loss everything is dropped.
            guard state.dropped == 0 else {
                state.dropped += bytes.count
                return
            }
            let kept = keep(bytes, in: &state)
            state.dropped += bytes.count - kept
        }
    }

    /// Adds all of the bytes or none: for what is worthless when it is cut. Blocks on the disk as ``append(_:)`` does.
    package func appendWhole(_ bytes: [UInt8]) -> Bool {
        state.withLock { state in
            guard bytes.count <= limit - state.memory.count - state.fileBytes else { return false }
            let kept = keep(bytes[...], in: &state)
            guard kept < bytes.count else { return true }
            budget?.giveBack(kept)
            if state.file == nil { state.memory.removeLast(kept) } else { state.fileBytes -= kept }
            return false
        }
    }

    /// Returns how many of the bytes were kept.
    private func keep(_ bytes: ArraySlice<UInt8>, in state: inout State) -> Int {
        let room = min(bytes.count, max(0, limit - state.memory.count - state.fileBytes))
        let granted = budget?.take(room) ?? room
        let rest = bytes.prefix(granted)
        let kept: Int
        if state.file == nil, state.memory.count + rest.count <= memoryLimit || !spill(&state) {
            let head = rest.prefix(max(0, memoryLimit - state.memory.count))
            state.memory.append(contentsOf: head)
            kept = head.count
        } else {
            kept = Self.write(rest, to: &state)
        }
        budget?.giveBack(granted - kept)
        return kept
    }

    /// Moves what is in memory into the file, where it outlives the process, and keeps it there from now on. Blocks on the disk.
    package func persist() {
        state.withLock { state in
            if state.file == nil, !state.memory.isEmpty { _ = spill(&state) }
        }
    }

    /// False when there can be no file: then what is in memory stays there.
    private func spill(_ state: inout State) -> Bool {
        guard let path else { return false }
        let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return false }
        state.file = descriptor
        let written = Self.write(state.memory[...], to: &state)
        guard written == state.memory.count else {
            close(descriptor)
            unlink(path)
            state.file = nil
            state.fileBytes = 0
            return false
        }
        state.memory = []
        return true
    }

    private static func write(_ bytes: ArraySlice<UInt8>, to state: inout State) -> Int {
        guard let file = state.file else { return 0 }
        var done = 0
        bytes.withUnsafeBytes { raw in
            while done < raw.count {
                let start = raw.baseAddress?.advanced(by: done)
                let count = pwrite(file, start, raw.count - done, off_t(state.fileBytes + done))
                guard count > 0 else {
                    if count < 0, errno == EINTR { continue }
                    return
                }
                done += count
            }
        }
        state.fileBytes += done
        return done
    }

    /// Reads up to `count` bytes at an offset; empty at the end. Blocks on the disk for what is in the file.
    package func read(at offset: Int, upTo count: Int) -> [UInt8] {
        state.withLock { state in
            guard let file = state.file else {
                guard offset < state.memory.count else { return [] }
                return Array(state.memory[offset..<min(offset + count, state.memory.count)])
            }
            let wanted = min(count, state.fileBytes - offset)
            guard wanted > 0 else { return [] }
            return [UInt8](unsafeUninitializedCapacity: wanted) { buffer, filled in
                filled = max(0, pread(file, buffer.baseAddress, wanted, off_t(offset)))
            }
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
