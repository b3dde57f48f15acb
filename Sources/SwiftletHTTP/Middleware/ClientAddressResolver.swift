// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import SwiftletCore
import Synchronization

/// Finds out where a request comes from, as far as the limits on log-ins are concerned.
final class ClientAddressResolver: Sendable {
    private static let header = HTTPField.Name("X-Forwarded-For")
    private let proxies: Int
    private let logger: Logger
    private let hasWarned = Mutex(false)

    /// - Parameter proxies: how many reverse proxies stand before the server.
    init(proxies: Int, logger: Logger) {
        self.proxies = proxies
        self.logger = logger
    }

    /// Where a request comes from, as far as limits on log-ins and the audit log are concerned.
    func clientAddress(of request: Request, _ context: AppContext) -> ClientAddress {
        let peer = context.peer
        let direct = peer?.clientAddress ?? ClientAddress("unknown")
        guard let name = Self.header else { return direct }
        let values = request.headers[values: name]
        guard proxies > 0 else {
            if !values.isEmpty, peer?.isLoopback == true { warn() }
            return direct
        }
        // Each proxy appends the address of its peer. Entries before those were sent by the client and are not trusted.
        let hops = values.flatMap { $0.split(separator: ",") }
        guard let hop = hops.suffix(proxies).first else { return direct }
        let address = Self.withoutPort(hop.trimmingCharacters(in: .whitespaces))
        return (try? SocketAddress(ipAddress: address, port: 0))?.clientAddress ?? direct
    }

    /// The address of `192.0.2.1:443`, `[2001:db8::1]:443` and `[2001:db8::1]`, as some proxies write it; all else as it is.
    private static func withoutPort(_ text: String) -> String {
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
            return String(text[text.index(after: text.startIndex)..<end])
        }
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        return parts.count == 2 && parts[0].contains(".") ? String(parts[0]) : text
    }

    private func warn() {
        let isFirst = hasWarned.withLock { hasWarned in
            defer { hasWarned = true }
            return !hasWarned
        }
        guard isFirst else { return }
        logger.warning(
            """
            A reverse proxy seems to stand before this server, and the setting proxies is 0: all who come through it count as one \
            for the limits on log-ins, so that one of them can shut the others out. Set proxies to the number of proxies
            """
        )
    }
}

extension SocketAddress {
    /// The unit that limits apply to: an IPv4 address, or an IPv6 network of 64 bits.
    var clientAddress: ClientAddress {
        switch self {
        case .v4, .unixDomainSocket:
            return ClientAddress(ipAddress ?? "local")
        case .v6:
            if let mapped { return ClientAddress(mapped) }
            return ClientAddress(prefix(of: 8), network: prefix(of: 6))
        }
    }

    fileprivate var isLoopback: Bool {
        switch self {
        case .v4: ipAddress?.hasPrefix("127.") == true
        case .v6: mapped?.hasPrefix("127.") ?? (ipAddress == "::1")
        // A proxy on the same machine, too.
        case .unixDomainSocket: true
        }
    }

    /// The IPv4 address that an IPv6 one stands for.
    private var mapped: String? {
        guard bytes.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255] else { return nil }
        return bytes.suffix(4).map(String.init).joined(separator: ".")
    }

    private func prefix(of count: Int) -> String {
        bytes.prefix(count).hexadecimal + "/\(count * 8)"
    }

    /// The 16 bytes of an IPv6 address; none of another.
    private var bytes: [UInt8] {
        guard case .v6(let address) = self else { return [] }
        // Family, port and flow stand before the address in a sockaddr_in6.
        return withUnsafeBytes(of: address.address) { Array($0.dropFirst(8).prefix(16)) }
    }
}
