// SPDX-License-Identifier: Apache-2.0

import Glibc
package import NIOCore
import NIOPosix

/// A socket that is connected already, on an event loop, with the handler that ends its pipeline.
package struct ConnectedSocket<Handler: ChannelHandler & SendableMetatype>: Sendable {
    package let channel: any NIOCore.Channel
    package let handler: NIOLoopBound<Handler>

    /// Takes over a socket, and closes it in the end or when this throws.
    ///
    /// The handler is in place before anything is read: what has come already, or an end that has, must not be lost.
    /// - Parameters:
    ///   - decoder: put before the handler, if given.
    ///   - make: makes the handler, on its event loop.
    package static func open(
        _ socket: Int32,
        on group: any EventLoopGroup,
        decoder: (@Sendable () -> any ChannelHandler)? = nil,
        handler make: @escaping @Sendable (any EventLoop) -> Handler
    ) async throws -> ConnectedSocket {
        let eventLoop = group.next()
        let handler: NIOLoopBound<Handler>
        do {
            handler = try await eventLoop.submit { NIOLoopBound(make(eventLoop), eventLoop: eventLoop) }.get()
        } catch {
            close(socket)
            throw error
        }
        let channel = try await ClientBootstrap(group: eventLoop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let decoder { try channel.pipeline.syncOperations.addHandler(decoder()) }
                    try channel.pipeline.syncOperations.addHandler(handler.value)
                }
            }
            .withConnectedSocket(socket)
            .get()
        return ConnectedSocket(channel: channel, handler: handler)
    }
}
