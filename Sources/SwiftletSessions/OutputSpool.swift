// SPDX-License-Identifier: Apache-2.0

import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// `O_TMPFILE`, which Glibc's module map cannot import because it is a compound macro.
private let namelessFile: Int32 = 0o20_000_000 | O_DIRECTORY

/// The bytes of one output stream: the first part in memory, the rest in a file without a name, the end cut at a limit.
///
/// Written by one task and read afterwards. The file disappears with the last reference, whatever happens to the process.
package final class OutputSpool: Sendable {
    private struct State {
        var memory: [UInt8] = []
        var file: Int32?
        var fileBytes = 0
        var dropped = 0
    }

    private let state = Mutex(State())
    private let directory: String
    private let memoryLimit: Int
    private let limit: Int

    /// - Parameters:
    ///   - directory: where the nameless file is made when `memoryLimit` is passed.
    ///   - memoryLimit: bytes kept in memory.
    ///   - limit: bytes kept in all; what follows is counted and dropped.
    package init(directory: String, memoryLimit: Int = 256 * 1024, limit: Int) {
        self.directory = directory
        self.memoryLimit = memoryLimit
        self.limit = limit
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
            var rest = bytes.prefix(max(0, limit - state.memory.count - state.fileBytes))
            state.dropped += bytes.count - rest.count
            if state.file == nil {
                let head = rest.prefix(max(0, memoryLimit - state.memory.count))
                state.memory.append(contentsOf: head)
                rest = rest.dropFirst(head.count)
            }
            if !rest.isEmpty {
                state.dropped += rest.count - Self.write(rest, to: &state, directory: directory)
            }
        }
    }

    private static func write(_ bytes: ArraySlice<UInt8>, to state: inout State, directory: String) -> Int {
        if state.file == nil {
            let descriptor = open(directory, namelessFile | O_RDWR | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { return 0 }
            state.file = descriptor
        }
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
            if offset < state.memory.count {
                return Array(state.memory[offset..<min(offset + count, state.memory.count)])
            }
            let position = offset - state.memory.count
            let wanted = min(count, state.fileBytes - position)
            guard let file = state.file, wanted > 0 else { return [] }
            return [UInt8](unsafeUninitializedCapacity: wanted) { buffer, filled in
                filled = max(0, pread(file, buffer.baseAddress, wanted, off_t(position)))
            }
        }
    }
}
