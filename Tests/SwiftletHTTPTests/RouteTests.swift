// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import SwiftletAccounts
import SwiftletCore
import SwiftletSessions
import Testing

@Suite struct RouteTests {
    func withServer(
        _ executions: FakeExecutions = FakeExecutions(),
        sessions: FakeSessions = FakeSessions(),
        _ body: @escaping @Sendable (any TestClientProtocol, String) async throws -> Void
    ) async throws {
        try await TestServer.with(executions: executions, sessions: sessions, body)
    }

    private func post(
        _ client: any TestClientProtocol,
        _ path: String,
        _ body: String,
        key: String? = nil
    ) async throws -> TestResponse {
        var headers: HTTPFields = [.contentType: "application/json"]
        if let key, let name = HTTPField.Name("X-API-Key") { headers[name] = key }
        return try await client.execute(uri: path, method: .post, headers: headers, body: ByteBuffer(string: body))
    }

    func object(_ response: TestResponse) throws -> [String: Any] {
        let data = Data(response.body.readableBytesView)
        return try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    @Test func aResultHasEveryFieldOfTheContract() async throws {
        try await withServer(FakeExecutions(stdout: Array("hi\n".utf8))) { client, key in
            let response = try await post(client, "/execute", #"{"command":"1"}"#, key: key)
            #expect(response.status == .ok)
            let result = try object(response)
            let names = [
                "stdout", "stderr", "exit_code", "execution_time", "cpu_time", "created_at", "session_id", "language",
                "vm_id",
                "vm_started_at", "timed_out", "state_lost", "stdout_dropped_bytes", "stderr_dropped_bytes", "outcome",
                "signal", "restore", "execution_id", "note", "results", "results_dropped", "stdout_bytes",
                "stderr_bytes",
            ]
            #expect(Set(result.keys) == Set(names))
            #expect(result["stdout"] as? String == "hi\n")
            #expect(result["created_at"] as? String == "1970-01-01T00:00:00.000000")
        }
    }

    @Test func metricsAreInPrometheussFormat() async throws {
        try await withServer { client, _ in
            let response = try await client.execute(uri: "/metrics", method: .get)
            #expect(response.status == .ok)
            #expect(response.headers[.contentType] == "text/plain; version=0.0.4; charset=utf-8")
            let text = String(buffer: response.body)
            #expect(
                text.hasPrefix(
                    "# HELP swiftlet_vms VMs.\n# TYPE swiftlet_vms gauge\nswiftlet_vms{state=\"a\\\"b\\\\c\\nd\"} 2.0\n"
                )
            )
        }
    }

    @Test func requestsAreCountedByTheirRouteAndNotByTheirPath() async throws {
        try await withServer { client, key in
            _ = try await post(client, "/execute", #"{"command":"1"}"#, key: key)
            _ = try await client.execute(uri: "/v1/sessions/status/a", method: .get)
            _ = try await client.execute(uri: "/v1/sessions/status/b", method: .get)
            _ = try await client.execute(uri: "/no/such/path", method: .get)
            let text = String(buffer: try await client.execute(uri: "/metrics", method: .get).body)
            for line in [
                #"swiftlet_http_requests_total{method="POST",route="/execute",status="200"} 1.0"#,
                #"swiftlet_http_requests_total{method="GET",route="/v1/sessions/status/{id}",status="401"} 2.0"#,
                #"swiftlet_http_requests_total{method="any",route="none",status="404"} 1.0"#,
                #"swiftlet_http_request_seconds_count{method="POST",route="/execute"} 1.0"#,
            ] {
                #expect(text.contains(line + "\n"), "\(line)")
            }
        }
    }

    @Test(arguments: [0, 1, 65_535, 65_536, 65_537, 500_000])
    func anOutputOfAnySizeArrivesWhole(count: Int) async throws {
        // Two bytes a character, so that pieces are cut in the middle.
        let bytes = [UInt8("x".utf8.first ?? 0)] + Array(String(repeating: "é", count: count / 2).utf8)
        try await withServer(FakeExecutions(stdout: bytes)) { client, key in
            let result = try object(try await post(client, "/execute", #"{"code":"1"}"#, key: key))
            #expect((result["stdout"] as? String)?.utf8.count == bytes.count)
        }
    }

    @Test func aNoteIsALineOfItsOwnEvenWithoutOtherOutput() async throws {
        try await withServer(FakeExecutions(note: "note")) { client, key in
            let result = try object(try await post(client, "/execute", #"{"code":"1"}"#, key: key))
            #expect(result["stderr"] as? String == "note")
        }
    }

    @Test func withoutAKeyNothingIsAnswered() async throws {
        try await withServer { client, _ in
            for path in ["/execute", "/execute_async", "/kill", "/v1/sessions/session"] {
                #expect(try await post(client, path, #"{"command":"1"}"#).status == .unauthorized)
                #expect(try await post(client, path, #"{"command":"1"}"#, key: "wrong").status == .unauthorized)
            }
            let status = try await client.execute(uri: "/v1/sessions/status/x", method: .get)
            #expect(status.status == .unauthorized)
        }
    }

    @Test func refusalsOfTheServiceHaveTheirStatus() async throws {
        let id = SessionID.random()
        let cases: [(SessionError, HTTPResponse.Status)] = [
            (.notFound(id), .notFound), (.noVM(id), .notFound),
            (.overloaded(reason: "full", retryAfter: 7), .serviceUnavailable),
            (.vmUnavailable(reason: "x"), .serviceUnavailable), (.shuttingDown, .serviceUnavailable),
            (.admission(.limitsUnavailable(reason: "secret")), .serviceUnavailable),
            (.admission(.forbidden(reason: "x")), .forbidden),
            (.admission(.quotaExceeded(reason: "x", limit: .refusal(limit: 3, retryAfter: 7))), .tooManyRequests),
        ]
        for (failure, status) in cases {
            try await withServer(FakeExecutions(failure: failure)) { client, key in
                let response = try await post(client, "/execute", #"{"command":"1"}"#, key: key)
                #expect(response.status == status)
                #expect(try object(response)["detail"] is String)
                let mayComeAgain = [.serviceUnavailable, .tooManyRequests].contains(status)
                #expect((response.headers[.retryAfter] != nil) == mayComeAgain)
                #expect(!String(buffer: response.body).contains("secret"))
            }
        }
    }

    @Test func severalMistakesAreAllTold() async throws {
        try await withServer { client, key in
            let body = #"{"timeout":0,"command":1,"vault_ids":[1]}"#
            let response = try await post(client, "/execute", body, key: key)
            #expect(response.status == .unprocessableContent)
            #expect((try object(response)["detail"] as? [Any])?.count == 3)
        }
    }

    @Test(arguments: [#""30""#, "30.0", "30", "null"])
    func aNumberInAnyOfItsFormsIsTaken(value: String) async throws {
        try await withServer { client, key in
            let response = try await post(client, "/execute", #"{"command":"1","timeout":\#(value)}"#, key: key)
            #expect(response.status == .ok)
        }
    }

    @Test func aBodyOverTheLimitIs413() async throws {
        try await withServer { client, key in
            let body = #"{"command":""# + String(repeating: "x", count: 1 << 20) + #""}"#
            let response = try await post(client, "/execute", body, key: key)
            #expect(response.status == .contentTooLarge)
        }
    }

    @Test func randomBodiesNeverBreakTheServer() async throws {
        try await withServer { client, key in
            let fields = [
                "command", "code", "api_key", "session_id", "language", "timeout", "vault_ids", "vm_lifetime_seconds",
                "memory_mb", "vcpu_count", "env", "metadata",
            ]
            let values = [
                "null", "true", "0", "-1", "1e999", "-0", "1.5", "99999999999999999999", #""""#, #""x""#, #""\u0000""#,
                #""\ud800""#, "[]", "[[]]", "{}", #"{"":""}"#, #"{"a":{"b":[null]}}"#, "nul", "[1,", "\"",
            ]
            for _ in 0..<1_500 {
                let body = (0..<Int.random(in: 0...4)).map { _ in
                    "\"\(fields.randomElement() ?? "")\":\(values.randomElement() ?? "")"
                }.joined(separator: ",")
                let path = ["/execute", "/kill", "/v1/sessions/session"].randomElement() ?? ""
                let response = try await post(client, path, "{\(body)}", key: key)
                #expect(response.status.code < 500, "\(path) \(body)")
            }
        }
    }
}
