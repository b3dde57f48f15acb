// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import NIOPosix
import SwiftletAccounts
import SwiftletCore
import SwiftletHTTP
import SwiftletStore
import Testing

/// A server without VMs whose users a test makes.
struct AccountServer: Sendable {
    static let secret = [UInt8](repeating: 7, count: 32)
    static let cheap = PasswordHash.Cost(n: 1_024, r: 8, p: 1)

    let client: any TestClientProtocol
    let users: UserStore
    let keys: APIKeyStore
    let audit: AuditStore

    /// Runs a body against a server with a plan `tiny` (3 requests at once, 60 a minute).
    static func with<Value: Sendable>(
        proxies: Int = 0,
        passwordThreads: NIOThreadPool = .singleton,
        _ body: @escaping @Sendable (AccountServer) async throws -> Value
    ) async throws -> Value {
        let database = try Database.inMemory()
        let plans = try PlanCatalog(json: Data(#"{"tiny": {"requestsPerMinute": 60, "requestBurst": 3}}"#.utf8))
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let accounts = await AccountServices(
            database,
            configuration: .init(
                plans: plans,
                tokenSecret: secret,
                cacheLife: .zero,
                passwordCost: cheap,
                proxies: proxies,
                passwordThreads: passwordThreads
            ),
            logger: logger
        )
        let server = SwiftletApplication(
            services: ServerServices(
                sessions: FakeSessions(),
                executions: FakeExecutions(),
                files: FakeFiles(),
                accounts: accounts,
                usage: UsageStore(database),
                audit: AuditBuffer(AuditStore(database), logger: logger)
            ),
            configuration: ServerConfiguration(maximumBody: 1 << 20, version: "test")
        )
        return try await Application(router: server.router(), logger: logger).test(.router) { client in
            try await body(
                AccountServer(
                    client: client,
                    users: UserStore(database),
                    keys: APIKeyStore(database),
                    audit: AuditStore(database)
                )
            )
        }
    }

    /// A user with a password, and a key of theirs.
    func user(_ email: String, plan: String = "unlimited", password: String? = nil) async throws -> (User, String) {
        let user = try await users.create(email: email, plan: plan)
        if let password {
            try await users.setPassword(hash: (PasswordHash(of: password, cost: Self.cheap)).text, of: user.id)
        }
        return (user, try await keys.create(for: user.id, label: "").text)
    }

    func send(
        _ method: HTTPRequest.Method,
        _ path: String,
        key: String? = nil,
        token: String? = nil,
        body: String = "",
        headers: [String: String] = [:]
    ) async throws -> TestResponse {
        var fields: HTTPFields = [:]
        for (name, value) in headers {
            if let name = HTTPField.Name(name) { fields[name] = value }
        }
        if let key, let name = HTTPField.Name("X-API-Key") { fields[name] = key }
        if let token { fields[.authorization] = "Bearer \(token)" }
        return try await client.execute(uri: path, method: method, headers: fields, body: ByteBuffer(string: body))
    }

    func logIn(_ email: String, _ password: String) async throws -> TestResponse {
        func encoded(_ text: String) -> String {
            text.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
        }
        return try await send(.post, "/token", body: "username=\(encoded(email))&password=\(encoded(password))")
    }

    func token(_ email: String, _ password: String) async throws -> String {
        let response = try await logIn(email, password)
        #expect(response.status == .ok)
        return try #require(try response.object["access_token"] as? String)
    }
}

extension TestResponse {
    var object: [String: Any] {
        get throws {
            try #require(JSONSerialization.jsonObject(with: Data(body.readableBytesView)) as? [String: Any])
        }
    }

    var array: [[String: Any]] {
        get throws {
            try #require(JSONSerialization.jsonObject(with: Data(body.readableBytesView)) as? [[String: Any]])
        }
    }

    var text: String { String(buffer: body) }

    func header(_ name: String) -> String? {
        HTTPField.Name(name).flatMap { headers[$0] }
    }
}

extension Data {
    var base64URL: String {
        base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }
}
