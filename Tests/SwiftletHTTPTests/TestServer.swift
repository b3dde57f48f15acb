// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import HummingbirdTesting
import Logging
import SwiftletAccounts
import SwiftletCore
import SwiftletHTTP
import SwiftletStore

/// A server over fakes, with one user.
enum TestServer {
    /// Runs a body with a client of the server and the user's key.
    static func with(
        executions: FakeExecutions = FakeExecutions(),
        sessions: FakeSessions = FakeSessions(),
        files: FakeFiles = FakeFiles(),
        maximumBody: Int = 1 << 20,
        _ body: @escaping @Sendable (any TestClientProtocol, String) async throws -> Void
    ) async throws {
        let (server, key, logger) = try await make(executions, sessions, files, maximumBody: maximumBody)
        try await Application(router: server.router(), logger: logger).test(.router) { client in
            try await body(client, key)
        }
    }

    /// What the server's router serves: methods and paths, as the API's description writes them.
    static func routes() async throws -> [String] {
        let (server, _, _) = try await make(FakeExecutions(), FakeSessions(), FakeFiles())
        return server.router().routes.map { route in
            "\(route.method.rawValue) \(route.path.description.replacing("**", with: "{path}"))"
        }
    }

    private static func make(
        _ executions: FakeExecutions,
        _ sessions: FakeSessions,
        _ files: FakeFiles,
        maximumBody: Int = 1 << 20
    ) async throws -> (server: SwiftletApplication, key: String, logger: Logger) {
        let database = try Database.inMemory()
        let user = try await UserStore(database).create(email: "a@example.org")
        let key = try await APIKeyStore(database).create(for: user.id, label: "").text
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let accounts = await AccountServices(
            database,
            configuration: .init(tokenSecret: AccountServer.secret),
            logger: logger
        )
        let server = SwiftletApplication(
            services: ServerServices(
                sessions: sessions,
                executions: executions,
                files: files,
                accounts: accounts,
                usage: UsageStore(database),
                audit: AuditBuffer(AuditStore(database), logger: logger)
            ),
            configuration: ServerConfiguration(maximumBody: maximumBody, version: "test")
        )
        return (server, key, logger)
    }
}
