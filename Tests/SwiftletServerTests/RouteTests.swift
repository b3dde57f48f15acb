// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import SwiftletServer
import SwiftletSessions
import SwiftletStore
import Testing

/// Sessions without VMs: answers what a test wants.
struct FakeSessions: SessionAPI {
    var stdout: [UInt8] = []
    var note: String?
    var failure: SessionError?

    func createSession(owner: UserID, options: SessionOptions) async throws -> SessionRecord {
        if let failure { throw failure }
        return SessionRecord(
            id: .random(),
            owner: owner,
            createdAt: Date(timeIntervalSince1970: 0.5),
            vmLifetimeSeconds: options.vmLifetimeSeconds ?? 300,
            memoryMB: options.memoryMB ?? 512,
            vcpuCount: options.vcpuCount ?? 2,
            environment: options.environment ?? [:],
            metadataJSON: options.metadataJSON ?? "{}"
        )
    }

    func status(of id: SessionID, owner: UserID) async throws -> SessionStatus {
        if let failure { throw failure }
        let record = try await createSession(owner: owner, options: SessionOptions())
        return SessionStatus(record: record, vm: nil, uptime: nil, expiresIn: nil)
    }

    func kill(_ id: SessionID, owner: UserID) async throws -> String {
        if let failure { throw failure }
        return "vm-x"
    }

    func metrics() async -> [MetricFamily] {
        [MetricFamily("swiftlet_vms", .gauge, "VMs.", [.init(["state": "a\"b\\c\nd"], 2)])]
    }

    func execute(_ request: ExecutionRequest) async throws -> ExecutionResult {
        if let failure { throw failure }
        let spool = OutputSpool(directory: NSTemporaryDirectory(), limit: 1 << 30)
        spool.append(stdout[...])
        return ExecutionResult(
            session: request.session ?? .random(),
            vmID: "vm-x",
            vmStartedAt: Date(timeIntervalSince1970: 0),
            language: request.language,
            createdAt: Date(timeIntervalSince1970: 0),
            stdout: spool,
            stderr: OutputSpool(directory: NSTemporaryDirectory(), limit: 0),
            note: note,
            executionTime: 0.25
        )
    }
}

@Suite struct RouteTests {
    private func withServer(
        _ sessions: FakeSessions = FakeSessions(),
        _ body: @escaping @Sendable (any TestClientProtocol, String) async throws -> Void
    ) async throws {
        let database = try Database.inMemory()
        let user = try await UserStore(database).create(email: "a@example.org")
        let key = try await KeyStore(database).create(for: user.id, label: "").text
        let accounts = await AccountServices(
            database,
            configuration: .init(tokenSecret: Array(repeating: 7, count: 32)),
            logger: Logger(label: "test")
        )
        let server = SwiftletApplication(
            services: ServerServices(sessions: sessions, accounts: accounts),
            configuration: ServerConfiguration(maximumBody: 1 << 20, version: "test")
        )
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        try await Application(router: server.router(), logger: logger).test(.router) { client in
            try await body(client, key)
        }
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

    private func object(_ response: TestResponse) throws -> [String: Any] {
        let data = Data(response.body.readableBytesView)
        return try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    @Test func aResultHasEveryFieldOfTheContract() async throws {
        try await withServer(FakeSessions(stdout: Array("hi\n".utf8))) { client, key in
            let response = try await post(client, "/execute", #"{"command":"1"}"#, key: key)
            #expect(response.status == .ok)
            let result = try object(response)
            let names = [
                "stdout", "stderr", "exit_code", "execution_time", "cpu_time", "created_at", "session_id", "language",
                "vm_id",
                "vm_started_at", "timed_out", "state_lost", "stdout_dropped_bytes", "stderr_dropped_bytes", "outcome",
                "signal", "restore",
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
                text
                    == "# HELP swiftlet_vms VMs.\n# TYPE swiftlet_vms gauge\nswiftlet_vms{state=\"a\\\"b\\\\c\\nd\"} 2.0\n"
            )
        }
    }

    @Test(arguments: [0, 1, 65_535, 65_536, 65_537, 500_000])
    func anOutputOfAnySizeArrivesWhole(count: Int) async throws {
        // Two bytes a character, so that pieces are cut in the middle.
        let bytes = [UInt8("x".utf8.first ?? 0)] + Array(String(repeating: "é", count: count / 2).utf8)
        try await withServer(FakeSessions(stdout: bytes)) { client, key in
            let result = try object(try await post(client, "/execute", #"{"code":"1"}"#, key: key))
            #expect((result["stdout"] as? String)?.utf8.count == bytes.count)
        }
    }

    @Test func aNoteIsALineOfItsOwnEvenWithoutOtherOutput() async throws {
        try await withServer(FakeSessions(note: "note")) { client, key in
            let result = try object(try await post(client, "/execute", #"{"code":"1"}"#, key: key))
            #expect(result["stderr"] as? String == "note")
        }
    }

    @Test func withoutAKeyNothingIsAnswered() async throws {
        try await withServer { client, _ in
            for path in ["/execute", "/kill", "/v1/sessions/session"] {
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
            (.limitsUnavailable(reason: "secret"), .serviceUnavailable), (.forbidden(reason: "x"), .forbidden),
            (.quotaExceeded(reason: "x", retryAfter: 7), .tooManyRequests),
        ]
        for (failure, status) in cases {
            try await withServer(FakeSessions(failure: failure)) { client, key in
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
