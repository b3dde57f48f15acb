// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import SwiftletCore
import SwiftletHTTP
import SwiftletSessions
import SwiftletStore
import SwiftletTestSupport
import Testing

/// Responses whose body is produced while it is sent: what the log, the metrics and the audit log say about their end.
@Suite struct StreamedResponseTests {
    private static let session = "11111111-1111-4111-8111-111111111111"
    private static let path = "/v1/sessions/\(session)/files/data.bin"
    private static let content = Array("0123456789".utf8)

    private static func metric(_ method: String, _ route: String, _ status: String) -> String {
        #"swiftlet_http_requests_total{method="\#(method)",route="\#(route)",status="\#(status)"}"#
    }

    @Test(arguments: [
        (HTTPRequest.Method.get, path, "/v1/sessions/{id}/files/**", ""),
        (.get, "/v1/sessions/\(session)/files?recursive=true", "/v1/sessions/{id}/files", ""),
        (.post, "/download", "/download", #"{"filename":"data.bin","session_id":"\#(session)"}"#),
    ])
    func downloadWhoseGuestDiesIsAnErrorInLogMetricsAndAudit(
        method: HTTPRequest.Method,
        path: String,
        route: String,
        body: String
    ) async throws {
        let log = RecordedLog()
        try await AccountServer.with(files: FakeFiles(content: Self.content, failsAfter: 4), log: log) { server in
            let (user, key) = try await server.user("a@example.org")
            let headers = ["content-type": "application/json"]
            await #expect(throws: FileError.self) {
                _ = try await server.send(method, path, key: key, body: body, headers: headers)
            }
            let line = try #require(log.requests.first)
            #expect(log.requests.count == 1)
            #expect(line.level == .error)
            #expect(line.metadata["http.status"] == "aborted")
            #expect(line.metadata["error"] == "The VM ended")
            let metrics = try await server.send(.get, "/metrics").text
            #expect(metrics.contains(Self.metric("\(method)", route, "aborted") + " 1.0"))
            #expect(!metrics.contains(Self.metric("\(method)", route, "200")))
            _ = try await server.send(.get, "/v1/audit/events", key: key)
            let event = try #require(try await server.audit.list(.init(owner: user.id)).first)
            #expect(event.type == .fileDownloaded)
            #expect(event.status == .error)
            #expect(event.message == "The content could not be read to its end: The VM ended")
        }
    }

    @Test func downloadThatIsWholeIsASuccessEverywhere() async throws {
        let log = RecordedLog()
        try await AccountServer.with(files: FakeFiles(content: Self.content), log: log) { server in
            let (user, key) = try await server.user("a@example.org")
            #expect(try await server.send(.get, Self.path, key: key).text == "0123456789")
            let line = try #require(log.requests.first)
            #expect(line.level == .info)
            #expect(line.metadata["http.status"] == "200")
            let metrics = try await server.send(.get, "/metrics").text
            #expect(metrics.contains(Self.metric("GET", "/v1/sessions/{id}/files/**", "200") + " 1.0"))
            _ = try await server.send(.get, "/v1/audit/events", key: key)
            let event = try #require(try await server.audit.list(.init(owner: user.id)).first)
            #expect(event.type == .fileDownloaded)
            #expect(event.status == .success)
        }
    }

    @Test func headRequestIsLoggedWithoutABody() async throws {
        let log = RecordedLog()
        try await AccountServer.with(executions: FakeExecutions(stdout: Self.content), log: log) { server in
            let (_, key) = try await server.user("a@example.org")
            let path = "/v1/executions/exec-11111111-1111-4111-8111-111111111111/output"
            let status = try await server.send(.head, path, key: key).status
            #expect(log.requests.map { $0.metadata["http.status"] } == ["\(status.code)"])
        }
    }

    // MARK: The body alone

    /// A connection that takes so many bytes, and is then closed.
    private struct Connection: ResponseBodyWriter {
        struct Closed: Error {}
        let limit: Int
        let received: Locked<Int>
        let isFinished: Locked<Bool>

        func write(_ buffer: ByteBuffer) async throws {
            guard received.value + buffer.readableBytes <= limit else { throw Closed() }
            received.withLock { $0 += buffer.readableBytes }
        }

        func finish(_ trailingHeaders: HTTPFields?) async throws { isFinished.withLock { $0 = true } }
    }

    private enum End: Equatable, Sendable {
        case complete, aborted, disconnected

        init(_ outcome: ResponseOutcome) {
            switch outcome {
            case .complete: self = .complete
            case .aborted: self = .aborted
            case .disconnected: self = .disconnected
            }
        }
    }

    /// Sends a body of one-byte pieces; returns how it ended, and whether the connection saw its end.
    private func send(
        length: Int? = nil,
        pieces: Int,
        failure: (any Error)? = nil,
        limit: Int = 100
    ) async throws -> (ends: [End], received: Int, isFinished: Bool) {
        let completion = StreamCompletion()
        let ends = Locked<[End]>([])
        completion.whenEnded { outcome in ends.withLock { $0.append(End(outcome)) } }
        let body = ResponseBody.streamed(length: length, completion: completion) { write in
            for _ in 0..<pieces { try await write(ByteBuffer(bytes: [1])) }
            if let failure { throw failure }
        }
        let connection = Connection(limit: limit, received: Locked(0), isFinished: Locked(false))
        // How the body fails is what the outcome says.
        try? await body.write(connection)
        return (ends.value, connection.received.value, connection.isFinished.value)
    }

    @Test func bodyThatIsWholeIsComplete() async throws {
        for length in [nil, 3] {
            let result = try await send(length: length, pieces: 3)
            #expect(result.ends == [.complete])
            #expect(result.received == 3)
            #expect(result.isFinished)
        }
        #expect(try await send(length: 0, pieces: 0).ends == [.complete])
    }

    @Test func sourceThatFailsAborts() async throws {
        let result = try await send(pieces: 3, failure: FileError(.vmLost, "The VM ended"))
        #expect(result.ends == [.aborted])
        #expect(!result.isFinished)
    }

    @Test(arguments: [2, 4])
    func bodyOfAnotherLengthThanAnnouncedIsNotFinished(pieces: Int) async throws {
        let result = try await send(length: 3, pieces: pieces)
        #expect(result.ends == (pieces < 3 ? [.aborted] : [.complete]))
        #expect(!result.isFinished)
    }

    @Test func clientThatLeavesIsNotAFailureOfTheSource() async throws {
        let result = try await send(pieces: 3, limit: 1)
        #expect(result.ends == [.disconnected])
        #expect(!result.isFinished)
    }

    @Test func cancellationIsNotAFailureOfTheSource() async throws {
        #expect(try await send(pieces: 3, failure: CancellationError()).ends == [.disconnected])
    }

    @Test func bodyThatIsNeverSentIsDisconnected() {
        let ends = Locked<[End]>([])
        do {
            let completion = StreamCompletion()
            completion.whenEnded { outcome in ends.withLock { $0.append(End(outcome)) } }
            _ = ResponseBody.streamed(completion: completion) { _ in }
        }
        #expect(ends.value == [.disconnected])
    }
}
