// SPDX-License-Identifier: Apache-2.0

/// What one person is taken to have, as far as limits on log-ins are concerned: an IPv4 address, or a network of IPv6.
package struct ClientAddress: Hashable, Sendable {
    package let name: String
    /// The larger network around it, of which one may have thousands of client addresses; nil for an IPv4 address.
    package let network: String?

    package init(_ name: String, network: String? = nil) {
        self.name = name
        self.network = network
    }
}
