// SPDX-License-Identifier: Apache-2.0

package import Hummingbird
package import NIOCore

/// What travels with a request.
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

extension SocketAddress {
    /// What one person is taken to have: an IPv4 address, or a network of 64 bits of IPv6.
    var household: String {
        switch self {
        case .v4, .unixDomainSocket:
            return ipAddress ?? "local"
        case .v6(let address):
            // Family, port and flow stand before the address in a sockaddr_in6.
            let bytes = withUnsafeBytes(of: address.address) { Array($0.dropFirst(8).prefix(16)) }
            if bytes.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255] {
                return bytes.suffix(4).map(String.init).joined(separator: ".")
            }
            return bytes.prefix(8).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() + "/64"
        }
    }
}
