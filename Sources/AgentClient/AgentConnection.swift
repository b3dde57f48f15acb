// SPDX-License-Identifier: Apache-2.0

package import AgentProtocol
package import NIOCore
import SwiftletCore
import Synchronization

/// The host's end of a VM's control port.
///
/// The handler behind it lives on one event loop; everything here may be called from anywhere.
package final class AgentConnection: Sendable {
    private let channel: any NIOCore.Channel
    private let handler: NIOLoopBound<AgentHandler>
    private let lastStream = Mutex<UInt32>(0)

    private init(channel: any NIOCore.Channel, handler: NIOLoopBound<AgentHandler>) {
        self.channel = channel
        self.handler = handler
    }

    /// Takes over a connected socket and closes it in the end.
    ///
    /// - Parameter tick: how often an agent that says nothing of a file is looked after.
    package static func open(
        socket: Int32,
        on group: any EventLoopGroup,
        tick: TimeAmount = .seconds(60)
    ) async throws -> AgentConnection {
        let socket = try await ConnectedSocket.open(socket, on: group) { AgentHandler(eventLoop: $0, tick: tick) }
        return AgentConnection(channel: socket.channel, handler: socket.handler)
    }

    package var eventLoop: any EventLoop { channel.eventLoop }

    /// Waits for the agent's greeting.
    package func hello() async throws -> Hello {
        try await onLoop { $0.hello.futureResult }.get()
    }

    /// Waits until the agent's interpreters are warm.
    package func warm() async throws {
        try await onLoop { $0.warm.futureResult }.get()
    }

    /// Lets the guest go through the ways of a first call, as somebody for the time being, and waits until it has.
    package func rehearse(_ prepare: Prepare) async throws {
        try await onLoop { $0.rehearse(prepare) }.get()
    }

    /// Tells the guest who it is, and returns what it confirmed; whatever is missing breaks the connection. No user code may be sent before this was called, and some may be sent right behind it.
    package func prepare(_ prepare: Prepare) -> EventLoopFuture<Prepared> {
        onLoop { $0.prepare(prepare) }
    }

    /// Returns when the agent has answered; throws when it did not within the time.
    package func ping(within limit: TimeAmount) async throws {
        try await onLoop { $0.ping(within: limit) }.get()
    }

    /// Sends code to the agent. The events end with `exited` or `refused`, or throw when the VM is lost.
    package func execute(_ language: GuestLanguage, source: [UInt8], timeout: Duration) -> any GuestExecution {
        let stream = nextStream()
        let (events, continuation) = AsyncThrowingStream<AgentExecution.Event, any Error>.makeStream()
        let request = ExecuteRequest(
            language: language,
            timeout: UInt32(clamping: max(1, timeout.milliseconds)),
            sourceLength: UInt32(source.count)
        )
        run { $0.open(stream: stream, request: request, source: source, continuation: continuation) }
        return AgentExecution(connection: self, stream: stream, events: events)
    }

    /// A stream's number is never used twice.
    func nextStream() -> UInt32 {
        lastStream.withLock { last in
            last += 1
            return last
        }
    }

    package func cancel(stream: UInt32, reason: CancelReason) {
        run { $0.cancel(stream: stream, reason: reason) }
    }

    func consumed(stream: UInt32, bytes: Int) {
        run { $0.consumed(stream: stream, bytes: bytes) }
    }

    /// Fails all that waits, and everything asked later, with this error.
    package func fail(_ error: any Error) {
        run { $0.fail(error) }
        channel.close(promise: nil)
    }

    /// Calls back, on the event loop, when the peer broke the protocol.
    package func onViolation(_ callback: @escaping @Sendable (ProtocolError) -> Void) {
        run { $0.onViolation(callback) }
    }

    func run(_ body: @escaping @Sendable (AgentHandler) -> Void) {
        let handler = handler
        if channel.eventLoop.inEventLoop {
            body(handler.value)
        } else {
            channel.eventLoop.execute { body(handler.value) }
        }
    }

    private func onLoop<Value: Sendable>(
        _ body: @escaping @Sendable (AgentHandler) -> EventLoopFuture<Value>
    ) -> EventLoopFuture<Value> {
        let handler = handler
        return channel.eventLoop.flatSubmit { body(handler.value) }
    }
}

/// Code that runs in a guest.
package struct AgentExecution: Sendable {
    package enum Event: Sendable {
        case output(AgentProtocol.Channel, [UInt8])
        case exited(ExitReport)
        case refused(ExecutionRefusal)
        /// A time limit that the host set has passed; the agent may still answer.
        case deadline
    }

    fileprivate let connection: AgentConnection
    fileprivate let stream: UInt32
    /// What happens, in order; to be read by one task, which must report what it used with ``consumed(_:)``.
    package let events: AsyncThrowingStream<Event, any Error>

    fileprivate init(connection: AgentConnection, stream: UInt32, events: AsyncThrowingStream<Event, any Error>) {
        self.connection = connection
        self.stream = stream
        self.events = events
    }

    /// Asks the agent to end it; the `exited` event follows.
    package func cancel(_ reason: CancelReason) {
        connection.cancel(stream: stream, reason: reason)
    }

    /// Bytes of output were used up: the guest may send as many more.
    package func consumed(_ bytes: Int) {
        connection.consumed(stream: stream, bytes: bytes)
    }

    /// Sends a `deadline` event after a time, unless the execution has ended by then.
    package func setDeadline(_ delay: TimeAmount) {
        connection.setDeadline(stream: stream, delay: delay)
    }
}

extension AgentConnection {
    fileprivate func setDeadline(stream: UInt32, delay: TimeAmount) {
        run { $0.setDeadline(stream: stream, delay: delay) }
    }
}
