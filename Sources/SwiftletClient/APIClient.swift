// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import AsyncHTTPClient
package import Foundation
import NIOCore
import NIOHTTP1

/// A client of the HTTP API, for the command line and the benchmarks.
package struct APIClient: Sendable {
    package let url: String
    package let key: String
    private let http: HTTPClient

    /// - Parameter connections: how many requests can be on their way at once; further ones wait for a connection, and that
    ///   wait counts towards their timeout.
    package init(url: String, key: String, connections: Int = 8) {
        self.url = url
        self.key = key
        // A redirect would carry the key to another server.
        var configuration = HTTPClient.Configuration(redirectConfiguration: .disallow)
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = connections
        http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// Must be called once, at the end.
    package func close() async throws {
        try await http.shutdown()
    }

    package func execute(_ body: ExecuteBody) async throws -> ExecuteReply {
        let data = try await post(
            "/execute",
            body: try JSONEncoder().encode(body),
            timeout: .seconds(body.timeout + 10)
        )
        return try JSONDecoder().decode(ExecuteReply.self, from: data)
    }

    /// The text of a response.
    package func get(_ path: String) async throws -> String {
        var request = HTTPClientRequest(url: url + path)
        request.headers = ["X-API-Key": key]
        return String(decoding: try await send(request, timeout: .seconds(30)), as: UTF8.self)
    }

    /// Sends a body and returns the response's.
    ///
    /// - Throws: `ValidationError` with the server's own message for anything but a success.
    package func post(_ path: String, body: Data, timeout: Duration = .seconds(60)) async throws -> Data {
        var request = HTTPClientRequest(url: url + path)
        request.method = .POST
        request.headers = ["X-API-Key": key, "Content-Type": "application/json"]
        request.body = .bytes(body)
        return try await send(request, timeout: timeout)
    }

    private func send(_ request: HTTPClientRequest, timeout: Duration) async throws -> Data {
        let response: HTTPClientResponse
        do {
            response = try await http.execute(request, timeout: TimeAmount(timeout))
        } catch let error as HTTPClientError where Self.isTimeout(error) {
            throw ValidationError("\(request.url) did not answer within \(timeout)")
        } catch {
            throw ValidationError("\(url) does not answer (\(error)); is the server up? Start it with: swiftlet serve")
        }
        let bytes = try await response.body.collect(upTo: 1 << 30)
        let data = Data(bytes.readableBytesView)
        guard response.status == .ok else {
            throw ValidationError(
                "The server answered \(response.status.code): \(String(decoding: data, as: UTF8.self))"
            )
        }
        return data
    }

    private static func isTimeout(_ error: HTTPClientError) -> Bool {
        error == .deadlineExceeded || error == .readTimeout || error == .getConnectionFromPoolTimeout
    }
}
