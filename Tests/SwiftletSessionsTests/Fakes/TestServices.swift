// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRDB
import Logging
import SwiftletAccounts
import SwiftletCore
import SwiftletSessions
import SwiftletStore
import SwiftletTestSupport

/// Sessions and executions over VMs that are fakes, on clocks that stand still.
struct TestServices: Sendable {
    let time: ControlledTime
    let provider: FakeVMProvider
    let sessions: SessionService
    let executions: ExecutionService
    let sessionStore: SessionStore
    let executionStore: ExecutionStore
    let audit: AuditBuffer
    let admission: Admission
    let owner: UserID
    let databasePath: String

    /// Runs the services while `body` does.
    ///
    /// - Parameters:
    ///   - plan: the owner's plan, as JSON of the plans' file.
    ///   - prepare: what is done to the database before the services recover.
    static func with(
        plan: String = "{}",
        prepare: (TestServices) async throws -> Void = { _ in },
        _ body: (TestServices) async throws -> Void
    ) async throws {
        try await withDatabaseFile { path in
            let services = try await TestServices(path, plan: plan)
            try await prepare(services)
            try await services.sessions.recover()
            try await services.executions.recover()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await services.sessions.run() }
                group.addTask { try await services.executions.run() }
                defer { group.cancelAll() }
                try await body(services)
            }
        }
    }

    private init(_ path: String, plan: String) async throws {
        let database = try Database.open(path: path)
        databasePath = path
        let plans = try PlanCatalog(json: Data(#"{"test": \#(plan)}"#.utf8))
        owner = try await UserStore(database).create(email: "owner@example.org", plan: "test").id
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        time = ControlledTime()
        provider = FakeVMProvider(time: time)
        sessionStore = SessionStore(database)
        executionStore = ExecutionStore(database)
        audit = AuditBuffer(AuditStore(database), logger: logger)
        let lookup = AccountLookup(database, plans: plans, life: .zero)
        admission = Admission(accounts: lookup, limiter: RateLimiter(database, now: { [time] in time.date }))
        sessions = SessionService(
            configuration: .init(),
            store: sessionStore,
            admission: admission,
            audit: audit,
            provider: provider,
            logger: logger,
            time: time
        )
        executions = ExecutionService(
            configuration: .init(directory: path + ".executions"),
            store: executionStore,
            sessions: sessions,
            logger: logger,
            time: time
        )
    }

    func session(lifetime: Int = 300) async throws -> SessionID {
        try await sessions.createSession(owner: owner, options: SessionOptions(vmLifetimeSeconds: lifetime)).id
    }

    func request(
        _ source: String = "1",
        _ language: Language = .python,
        in session: SessionID? = nil,
        mode: ExecutionMode = .sync,
        timeout: Duration? = .seconds(60),
        key: String? = nil
    ) -> ExecutionRequest {
        ExecutionRequest(
            session: session,
            owner: owner,
            source: source,
            language: language,
            mode: mode,
            timeout: timeout,
            idempotency: key.map { IdempotencyClaim(key: $0, requestHash: source) },
            receivedAt: time.now
        )
    }

    func execute(_ source: String = "1", in session: SessionID? = nil) async throws -> ExecutionRecord {
        try await executions.execute(request(source, in: session)).result.record
    }

    /// Another connection to the services' database, which waits while they write.
    func secondConnection() throws -> DatabaseQueue {
        var configuration = GRDB.Configuration()
        configuration.busyMode = .timeout(10)
        return try DatabaseQueue(path: databasePath, configuration: configuration)
    }

    /// Audit events of a type, the oldest first.
    func audited(_ type: AuditEventType) async throws -> [AuditEvent] {
        await audit.flush()
        var filter = AuditStore.Filter(owner: owner)
        filter.type = type
        return try await audit.store.list(filter).reversed()
    }
}

/// Waits until something is so; the test's time limit ends a wait that never does.
func until(_ condition: () async throws -> Bool) async rethrows {
    while try await !condition() { await Task.yield() }
}
