// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import SwiftletCore
import SwiftletSessions
import SwiftletStore
import Testing

@Suite struct ExecutionRouteTests {
    private let id = ExecutionID.random()

    private func withServer(
        _ executions: FakeExecutions = FakeExecutions(),
        _ body: @escaping @Sendable (any TestClientProtocol, HTTPFields) async throws -> Void
    ) async throws {
        try await TestServer.with(executions: executions) { client, key in
            try await body(client, [.authorization: "Bearer \(key)", .contentType: "application/json"])
        }
    }

    private func header(_ response: TestResponse, _ name: String) throws -> String? {
        response.headers[try #require(HTTPField.Name(name))]
    }

    private func with(_ headers: HTTPFields, _ name: String, _ value: String) throws -> HTTPFields {
        var headers = headers
        headers[try #require(HTTPField.Name(name))] = value
        return headers
    }

    @Test(arguments: [
        ("", "0123456789", "10", "true"), ("?offset=4", "456789", "10", "true"),
        ("?offset=4&limit=3", "456", "7", "false"), ("?offset=10", "", "10", "true"),
        ("?stream=stderr", "", "0", "true"),
    ])
    func anOutputIsReadFromAnyOffset(query: String, text: String, next: String, complete: String) async throws {
        let uri = "/v1/executions/\(id)/output\(query)"
        try await withServer(FakeExecutions(stdout: Array("0123456789".utf8))) { client, headers in
            let response = try await client.execute(uri: uri, method: .get, headers: headers)
            #expect(response.status == .ok)
            #expect(String(buffer: response.body) == text)
            #expect(try header(response, "x-next-offset") == next)
            #expect(try header(response, "x-complete") == complete)
        }
    }

    @Test(arguments: [
        ("?offset=11", 416), ("?offset=-1", 422), ("?offset=x", 422), ("?offset=99999999999999999999", 422),
        ("?limit=0", 422), ("?stream=stdin", 422), ("?wait=61", 422),
    ])
    func anOutputThatCannotBeIsRefused(query: String, status: Int) async throws {
        let uri = "/v1/executions/\(id)/output\(query)"
        try await withServer(FakeExecutions(stdout: Array("0123456789".utf8))) { client, headers in
            let response = try await client.execute(uri: uri, method: .get, headers: headers)
            #expect(response.status.code == status)
        }
    }

    @Test func anOutputThatIsNotKeptAnyMoreIsGone() async throws {
        let base = "/v1/executions/\(id)"
        try await withServer(FakeExecutions(outputExpiredAt: Date())) { client, headers in
            for path in ["/output", "/events"] {
                let response = try await client.execute(uri: base + path, method: .get, headers: headers)
                #expect(response.status == .gone)
            }
            let record = try await client.execute(uri: base, method: .get, headers: headers)
            #expect(String(buffer: record.body).contains("\"output_expired\":true"))
        }
    }

    @Test func aTaskHasTheOutputFieldsThatTheClientReads() async throws {
        let fake = FakeExecutions(stdout: Array("hi\n".utf8), results: Array("{\"a\":1}\n{\"b\":2}\n".utf8))
        try await withServer(fake) { client, headers in
            let response = try await client.execute(uri: "/v1/executions/\(id)", method: .get, headers: headers)
            let data = Data(response.body.readableBytesView)
            let object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
            #expect(object["is_complete"] as? Bool == true)
            #expect(object["serialized_stdout"] as? String == "hi\n")
            #expect(object["serialized_stderr"] as? String == "")
            #expect((object["results"] as? [[String: Int]]) == [["a": 1], ["b": 2]])
        }
    }

    @Test func aListTakesItsFiltersFromTheQuery() async throws {
        let fake = FakeExecutions()
        try await withServer(fake) { client, headers in
            for path in ["/v1/executions", "/v1/executions/"] {
                let session = SessionID.random()
                let query = "?limit=1&status=timed_out&language=js&session_id=\(session)&before=\(id)"
                let response = try await client.execute(uri: path + query, method: .get, headers: headers)
                #expect(response.status == .ok)
                #expect(try header(response, "x-next-cursor")?.hasPrefix("exec-") == true)
                let filter = try #require(fake.filters.last)
                #expect(filter.limit == 1)
                #expect(filter.states == [.timedOut])
                #expect(filter.language == "javascript")
                #expect(filter.session == session)
                #expect(filter.before == id)
            }
            for query in ["limit=0", "limit=1001", "status=odd", "language=cobol", "session_id=1", "before=x"] {
                let response = try await client.execute(uri: "/v1/executions/?\(query)", method: .get, headers: headers)
                #expect(response.status == .unprocessableContent, "\(query)")
            }
        }
    }

    @Test func anIdThatIsNoneIsUnknown() async throws {
        try await withServer { client, headers in
            for path in ["/v1/executions/x", "/v1/executions/exec-..%2f/output", "/v1/executions/exec-0/events"] {
                let response = try await client.execute(uri: path, method: .get, headers: headers)
                #expect(response.status == .notFound)
            }
        }
    }

    @Test func theSameRequestHasTheSameDigestHoweverItIsWritten() async throws {
        let fake = FakeExecutions()
        try await withServer(fake) { client, headers in
            let headers = try with(headers, "Idempotency-Key", "k")
            var hashes: [String] = []
            for body in [
                #"{"command":"1","timeout":60}"#, #"{ "timeout":60, "session_id":null, "command":"1","api_key":"x" }"#,
                #"{"command":"2","timeout":60}"#,
            ] {
                _ = try await client.execute(
                    uri: "/execute",
                    method: .post,
                    headers: headers,
                    body: ByteBuffer(string: body)
                )
                hashes.append(try #require(fake.requests.last?.idempotency?.requestHash))
            }
            #expect(hashes[0] == hashes[1])
            #expect(hashes[0] != hashes[2])
        }
    }

    @Test(arguments: ["", String(repeating: "k", count: 256), "é"])
    func aKeyThatIsNoneIsRefused(key: String) async throws {
        try await withServer { client, headers in
            let headers = try with(headers, "Idempotency-Key", key)
            let body = ByteBuffer(string: #"{"command":"1"}"#)
            let response = try await client.execute(uri: "/execute", method: .post, headers: headers, body: body)
            #expect(response.status == .unprocessableContent)
        }
    }

    @Test func codeThatNobodyWaitsForHasNoTimeoutUnlessItIsGiven() async throws {
        let fake = FakeExecutions()
        try await withServer(fake) { client, headers in
            for (body, timeout) in [
                (#"{"command":"1"}"#, nil), (#"{"command":"1","timeout":7}"#, Duration.seconds(7)),
            ] {
                let buffer = ByteBuffer(string: body)
                let uri = "/execute_async"
                let response = try await client.execute(uri: uri, method: .post, headers: headers, body: buffer)
                #expect(response.status == .ok)
                #expect(String(buffer: response.body).contains("\"task_id\":\"exec-"))
                #expect(fake.requests.last?.timeout == timeout)
                #expect(fake.requests.last?.mode == .async)
            }
        }
    }
}
