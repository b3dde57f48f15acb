// SPDX-License-Identifier: Apache-2.0

package import Hummingbird
package import NIOCore

/// The context of a request.
package struct AppContext: RequestContext {
    package var coreContext: CoreRequestContextStorage
    /// Where the request came from; nil in tests without sockets.
    package let peer: SocketAddress?
    /// The connection that it came by.
    let channel: any Channel

    package init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        peer = source.channel.remoteAddress
        channel = source.channel
    }
}
