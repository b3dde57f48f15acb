// SPDX-License-Identifier: Apache-2.0

package import AgentProtocol
package import NIOCore

/// One operation on a file in the guest.
///
/// It is cancelled in the guest when the last reference to it goes, and when a task is cancelled that reads its events or writes.
package final class AgentFile: Sendable {
    package enum Event: Sendable {
        /// The file is open.
        case opened(FileStatus)
        /// Bytes, which whoever reads must report with ``consumed(_:)``.
        case content(ArraySlice<UInt8>)
        /// Entries of a directory, and how many bytes to report with ``consumed(_:)``.
        case entries([FileEntry], bytes: Int)
        /// It is over; the last event.
        case done(FileDone)
    }

    /// The operation has ended: what is written goes nowhere. Its last event says why.
    package struct Over: Error {}

    /// The guest says nothing of the operation.
    package struct Silence: Error {
        /// The agent lives, and waits itself: for a disk, or a file system of the user's own.
        package let agentAnswers: Bool
    }

    /// What happens, in order; to be read by one task.
    package let events: AsyncThrowingStream<Event, any Error>

    private let connection: AgentConnection
    private let stream: UInt32

    fileprivate init(
        connection: AgentConnection,
        stream: UInt32,
        events: AsyncThrowingStream<Event, any Error>
    ) {
        self.connection = connection
        self.stream = stream
        self.events = events
    }

    deinit { cancel() }

    /// Asks for bytes of a file that is open for reading; once.
    package func read(_ range: FileRange) {
        run { stream, files in files.select(stream, range: range) }
    }

    /// Sends content. Returns when the guest has taken, or has room for, all of it.
    ///
    /// - Throws: ``Over`` when the operation has ended; the connection's error when the VM is lost; `CancellationError` when the
    ///   task is cancelled, and with it the operation.
    package func write(_ bytes: ByteBuffer) async throws {
        let promise = connection.eventLoop.makePromise(of: Void.self)
        run { stream, files in files.write(stream, bytes, promise: promise) }
        do {
            try await withTaskCancellationHandler {
                try await promise.futureResult.get()
            } onCancel: {
                cancel()
            }
        } catch let over as Over {
            try Task.checkCancellation()
            throw over
        }
    }

    /// Tells that the content is complete.
    package func finish() {
        run { stream, files in files.finish(stream) }
    }

    /// Bytes were used up: the guest may send as many more.
    package func consumed(_ bytes: Int) {
        run { stream, files in files.consumed(stream, bytes: bytes) }
    }

    /// Ends it; what was written and not finished is gone.
    package func cancel() {
        run { stream, files in files.cancel(stream) }
    }

    private func run(_ body: @escaping @Sendable (UInt32, inout FileStreamTable) -> [Frame]) {
        let stream = stream
        connection.run { handler in handler.withFiles { body(stream, &$0) } }
    }
}

extension AgentConnection {
    /// Begins an operation on a file in the guest.
    package func open(_ request: FileRequest) -> any GuestFile {
        let stream = nextStream()
        let (events, continuation) = AsyncThrowingStream<AgentFile.Event, any Error>.makeStream()
        continuation.onTermination = { [weak self] termination in
            // A reader's task was cancelled, or the stream of events was released.
            guard case .cancelled = termination, let self else { return }
            run { handler in handler.withFiles { $0.cancel(stream) } }
        }
        run { $0.open(stream: stream, request: request, continuation: continuation) }
        return AgentFile(connection: self, stream: stream, events: events)
    }
}
