// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import HummingbirdTesting
import Testing

/// What of `X-Forwarded-For` is believed, as the pauses after wrong passwords show it.
@Suite struct ClientAddressTests {
    /// How many of 25 wrong passwords for as many accounts are tried before one must wait.
    private func tried(proxies: Int, _ forwarded: @escaping @Sendable (Int) -> String) async throws -> Int {
        try await AccountServer.with(proxies: proxies) { server in
            for number in 0..<25 {
                let response = try await server.send(
                    .post,
                    "/token",
                    body: "username=\(number)@example.org&password=x",
                    headers: ["X-Forwarded-For": forwarded(number)]
                )
                if response.status == .tooManyRequests { return number }
            }
            return 25
        }
    }

    @Test func withoutAProxyNobodyChoosesTheirAddress() async throws {
        #expect(try await tried(proxies: 0) { "192.0.2.\($0)" } == 21)
    }

    @Test func theAddressThatTheProxyAppendedIsUsedAndNoEarlierOne() async throws {
        #expect(try await tried(proxies: 1) { "192.0.2.\($0)" } == 25)
        #expect(try await tried(proxies: 1) { "192.0.2.\($0), 198.51.100.1" } == 21)
        #expect(try await tried(proxies: 2) { "192.0.2.\($0), 198.51.100.1" } == 25)
    }

    @Test func aNetworkOfIPv6IsOneClientAddress() async throws {
        #expect(try await tried(proxies: 1) { "2001:db8:1:2::\($0)" } == 21)
        #expect(try await tried(proxies: 1) { "2001:db8:1:\($0)::1" } == 25)
        #expect(try await tried(proxies: 1) { "::ffff:192.0.2.\($0)" } == 25)
    }

    @Test func manyNetworksOfOneProviderShareALimit() async throws {
        try await AccountServer.with(proxies: 1) { server in
            for number in 0..<101 { try await expect(.badRequest, server, "2001:db8:1:\(number)::1") }
            try await expect(.tooManyRequests, server, "2001:db8:1:500::1")
            try await expect(.badRequest, server, "2001:db8:2:500::1")
        }
    }

    private func expect(_ status: HTTPResponse.Status, _ server: AccountServer, _ address: String) async throws {
        let body = "username=\(address)@example.org&password=x"
        let response = try await server.send(.post, "/token", body: body, headers: ["X-Forwarded-For": address])
        #expect(response.status == status, "\(address)")
    }

    @Test func aPortIsNoPartOfAnAddress() async throws {
        #expect(try await tried(proxies: 1) { "192.0.2.1:\(5_000 + $0)" } == 21)
        #expect(try await tried(proxies: 1) { "192.0.2.\($0):443" } == 25)
        #expect(try await tried(proxies: 1) { "[2001:db8:1:2::\($0)]:\(5_000 + $0)" } == 21)
        #expect(try await tried(proxies: 1) { "[2001:db8:1:\($0)::1]:443" } == 25)
        #expect(try await tried(proxies: 1) { "[2001:db8:1:\($0)::1]" } == 25)
    }

    @Test func aMalformedForwardedAddressGivesTheProxysAddress() async throws {
        #expect(try await tried(proxies: 1) { "unknown-\($0)" } == 21)
        #expect(try await tried(proxies: 1) { _ in "" } == 21)
        #expect(try await tried(proxies: 1) { "[192.0.2.\($0)" } == 21)
        #expect(try await tried(proxies: 1) { "192.0.2.\($0):1:2" } == 21)
    }
}
