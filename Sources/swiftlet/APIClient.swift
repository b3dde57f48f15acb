// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1

/// Which server to talk to, and as whom.
struct ClientOptions: ParsableArguments {
    @Option(help: "The server. Default: SWIFTLET_URL, or http://127.0.0.1:8000")
    var url: String?

    @Option(help: "An API key. Default: SWIFTLET_API_KEY, or the first key of the server on this machine")
    var key: String?

    func client() throws -> APIClient {
        let environment = ProcessInfo.processInfo.environment
        let url = url ?? environment["SWIFTLET_URL"] ?? "http://127.0.0.1:8000"
        if let key = key ?? environment["SWIFTLET_API_KEY"] { return APIClient(url: url, key: key) }
        guard Self.isThisMachine(url) else {
            throw ValidationError(
                "No API key: give one with --key or SWIFTLET_API_KEY (this machine's own first key does not go to \(url))"
            )
        }
        let data = environment["SWIFTLET_DATA_DIRECTORY"] ?? DataDirectory.standard
        let file = DataDirectory(path: data, images: "").firstKey
        guard let stored = try? String(contentsOfFile: file, encoding: .utf8) else {
            throw ValidationError("No API key: give one with --key or SWIFTLET_API_KEY (\(file) is not there)")
        }
        return APIClient(url: url, key: stored.trimmingCharacters(in: .whitespacesAndNewlines))
    }

    /// Whether an address leads to this machine, whatever names may mean elsewhere.
    private static func isThisMachine(_ url: String) -> Bool {
        guard let host = URL(string: url)?.host() else { return false }
        if ["localhost", "::1", "[::1]"].contains(host.lowercased()) { return true }
        let numbers = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        return numbers.count == 4 && numbers.first == 127 && !numbers.contains(nil)
    }
}

struct ExecuteBody: Encodable {
    var command: String
    var language: String
    var sessionID: String?
    var timeout: Int

    enum CodingKeys: String, CodingKey {
        case command, language, timeout
        case sessionID = "session_id"
    }
}

struct ExecuteReply: Decodable {
    var stdout: String
    var stderr: String
    var exitCode: Int
    var executionTime: Double
    var sessionID: String
    var vmID: String
    var outcome: String

    enum CodingKeys: String, CodingKey {
        case stdout, stderr, outcome
        case exitCode = "exit_code"
        case executionTime = "execution_time"
        case sessionID = "session_id"
        case vmID = "vm_id"
    }
}

/// A client of the HTTP API, for the command line and the benchmarks.
struct APIClient: Sendable {
    let url: String
    let key: String
    /// Goes nowhere else than it was told to: a redirect would carry the key away.
    private let http = HTTPClient(
        eventLoopGroupProvider: .singleton,
        configuration: .init(redirectConfiguration: .disallow)
    )

    init(url: String, key: String) {
        self.url = url
        self.key = key
    }

    /// Must be called once, at the end.
    func close() async throws {
        try await http.shutdown()
    }

    func execute(_ body: ExecuteBody) async throws -> ExecuteReply {
        let data = try await post(
            "/execute",
            body: try JSONEncoder().encode(body),
            timeout: .seconds(Int64(body.timeout) + 10)
        )
        return try JSONDecoder().decode(ExecuteReply.self, from: data)
    }

    /// An answer's text.
    func get(_ path: String) async throws -> String {
        var request = HTTPClientRequest(url: url + path)
        request.headers = ["X-API-Key": key]
        return String(decoding: try await send(request, timeout: .seconds(30)), as: UTF8.self)
    }

    /// Sends a body and returns the answer's.
    ///
    /// - Throws: `ValidationError` with the server's words for anything but a success.
    func post(_ path: String, body: Data, timeout: TimeAmount = .seconds(60)) async throws -> Data {
        var request = HTTPClientRequest(url: url + path)
        request.method = .POST
        request.headers = ["X-API-Key": key, "Content-Type": "application/json"]
        request.body = .bytes(body)
        return try await send(request, timeout: timeout)
    }

    private func send(_ request: HTTPClientRequest, timeout: TimeAmount) async throws -> Data {
        let response: HTTPClientResponse
        do {
            response = try await http.execute(request, timeout: timeout)
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
}
