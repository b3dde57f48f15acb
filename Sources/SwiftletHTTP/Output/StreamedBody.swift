// SPDX-License-Identifier: Apache-2.0

package import Hummingbird
package import NIOCore
import Synchronization

/// How the sending of a response ended.
package enum ResponseOutcome: Sendable {
    /// The whole response was handed to the connection.
    case complete
    /// The source of the body failed after the head was sent: a guest died, a file became unreadable.
    case aborted(any Error)
    /// The connection ended first: the client closed it, or the server stopped.
    case disconnected
}

/// Reports the end of a streamed body, once, to the middleware that logs, counts and audits the request.
package final class StreamCompletion: Sendable {
    private struct State {
        var outcome: ResponseOutcome?
        var handler: (@Sendable (ResponseOutcome) -> Void)?
    }

    private let state = Mutex(State())

    package init() {}

    /// Calls a handler when the body has ended, or at once when it has.
    package func whenEnded(_ handler: @escaping @Sendable (ResponseOutcome) -> Void) {
        let outcome = state.withLock { state in
            if state.outcome == nil { state.handler = handler }
            return state.outcome
        }
        if let outcome { handler(outcome) }
    }

    /// Ends the body; a second end changes nothing.
    package func end(_ outcome: ResponseOutcome) {
        let handler = state.withLock { state -> (@Sendable (ResponseOutcome) -> Void)? in
            guard state.outcome == nil else { return nil }
            state.outcome = outcome
            return state.handler.take()
        }
        handler?(outcome)
    }

    deinit {
        // The connection failed before the first byte of the body: the server dropped the response.
        end(.disconnected)
    }
}

/// A body that ended before the length that its head had announced.
package struct ShortBody: Error, CustomStringConvertible {
    let sent: Int
    let announced: Int

    package var description: String { "The content ended after \(sent) of \(announced) bytes" }
}

extension ResponseBody {
    /// A body that is produced while it is sent, whose end the request's log line, metric and audit event wait for.
    ///
    /// - Parameters:
    ///   - length: the number of bytes, if it is known.
    ///   - produce: writes the body piece by piece; an error that it throws aborts the response and closes the connection.
    package static func streamed(
        length: Int? = nil,
        completion: StreamCompletion = StreamCompletion(),
        _ produce: @escaping @Sendable (_ write: (ByteBuffer) async throws -> Void) async throws -> Void
    ) -> ResponseBody {
        RequestAuditContext.current?.stream = completion
        return ResponseBody(contentLength: length) { writer in
            var sent = 0
            var isConnected = true
            do {
                try await produce { bytes in
                    sent += bytes.readableBytes
                    // The record is made before the last byte leaves: a client that has the whole finds it in the audit log.
                    if sent == length { completion.end(.complete) }
                    do {
                        try await writer.write(bytes)
                    } catch {
                        isConnected = false
                        throw error
                    }
                }
                if let length, sent != length { throw ShortBody(sent: sent, announced: length) }
            } catch {
                let isSource = isConnected && !(error is CancellationError)
                completion.end(isSource ? .aborted(error) : .disconnected)
                throw error
            }
            completion.end(.complete)
            try await writer.finish(nil)
        }
    }
}
