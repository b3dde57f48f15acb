// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import SwiftletAccounts
import SwiftletCore
import SwiftletHTTP
import SwiftletSessions
import SwiftletStore
import SwiftletVM
import UnixSignals

/// Builds a server of its parts and runs it.
struct ServeGraph {
    let settings: Settings
    let logger: Logger

    /// Serves until it is told to stop.
    func run() async throws {
        let data = settings.data
        try data.create()
        try data.lock()
        // A password's check takes a thread for long, which starts of VMs must not wait for. One leaves a small machine the other.
        let passwordThreads = NIOThreadPool(numberOfThreads: System.coreCount > 2 ? 2 : 1)
        passwordThreads.start()
        do {
            try await serve(passwordThreads: passwordThreads)
        } catch {
            // The first error tells more.
            try? await passwordThreads.shutdownGracefully()
            throw error
        }
        try await passwordThreads.shutdownGracefully()
    }

    private func serve(passwordThreads: NIOThreadPool) async throws {
        let data = settings.data
        let threads = NIOThreadPool.singleton
        let database = try Database.open(path: data.database)
        let plans = try settings.planCatalog()
        let accounts = await AccountServices(
            database,
            configuration: .init(
                plans: plans,
                tokenSecret: try data.tokenSecret(),
                publicURL: settings.publicURL,
                proxies: settings.proxies,
                keyRetentionSeconds: settings.retentionDays * 86_400,
                passwordThreads: passwordThreads
            ),
            logger: logger
        )
        let audit = AuditBuffer(AuditStore(database), logger: logger)
        let engine = try await openProvider(threads: threads)
        var configuration = SessionService.Configuration()
        configuration.defaultLifetimeSeconds = settings.vmLifetimeSeconds
        configuration.defaultMemoryMB = settings.memoryMB
        configuration.defaultVCPUCount = settings.vcpuCount
        configuration.retentionDays = settings.retentionDays
        let sessions = SessionService(
            configuration: configuration,
            store: SessionStore(database),
            admission: accounts.admission,
            audit: audit,
            provider: engine,
            logger: logger
        )
        var executionConfiguration = ExecutionService.Configuration(directory: data.executions)
        executionConfiguration.outputLimit = settings.outputLimitBytes
        executionConfiguration.retention = settings.retention
        let executions = ExecutionService(
            configuration: executionConfiguration,
            store: ExecutionStore(database),
            sessions: sessions,
            logger: logger
        )
        // The port opens when nothing is left to be recovered: no request can meet a record of the last server's.
        try await sessions.recover()
        try await executions.recover()
        let key = try await firstKey(database, plan: plans.defaultPlan)
        let application = SwiftletApplication(
            services: ServerServices(
                sessions: sessions,
                executions: executions,
                files: sessions,
                accounts: accounts,
                usage: UsageStore(database),
                audit: audit
            ),
            configuration: ServerConfiguration(
                host: settings.host,
                port: settings.port,
                maximumBody: settings.bodyLimitBytes,
                version: Swiftlet.version
            )
        ).application(logger: logger) { [settings] port in
            Self.greet(
                host: settings.host,
                port: port ?? settings.port,
                key: key,
                accelerator: (engine as? MicroVMEngine)?.accelerator
            )
        }
        let limit = Duration.seconds(settings.shutdownSeconds)
        let drain = ExecutionDrain(executions: executions, sessions: sessions, limit: limit)
        var group = ServiceGroupConfiguration(
            // Stopped in the reverse order: what runs ends first, while its callers can still be answered.
            services: [auditWriter(audit), sessions, executions, MaintenanceService(accounts), application, drain],
            gracefulShutdownSignals: [.sigterm, .sigint],
            logger: logger
        )
        group.maximumGracefulShutdownDuration = limit + .seconds(15)
        group.maximumCancellationDuration = .seconds(15)
        try await ServiceGroup(configuration: group).run()
    }

    private func auditWriter(_ log: AuditBuffer) -> AuditFlushService {
        let retention = AuditFlushService.Retention(
            seconds: settings.auditRetentionDays * 86_400,
            events: settings.auditMaximumEvents
        )
        return AuditFlushService(log, retention: retention, version: Swiftlet.version, logger: logger)
    }

    /// The engine; without an image one that waits for it. Whatever else is missing ends the server.
    private func openProvider(threads: NIOThreadPool) async throws -> any VMProvider {
        let (store, variant) = (ImageStore(directory: settings.data.images), settings.imageVariant)
        do {
            _ = try await threads.runIfActive { try store.newest(variant) }
        } catch let error as ImageError {
            logger.warning("VMs cannot start yet", metadata: ["reason": "\(error)"])
            return DeferredEngine(waitingFor: error, limits: settings.capacity, logger: logger) {
                try await openEngine(threads: threads)
            }
        }
        return try await openEngine(threads: threads)
    }

    private func openEngine(threads: NIOThreadPool) async throws -> MicroVMEngine {
        let settings = settings
        var configuration = try await threads.runIfActive {
            let configuration = try EngineFactory.configuration(settings)
            try EngineFactory.check(try settings.planCatalog(), for: configuration.image)
            return configuration
        }
        configuration.accelerator = try await EngineFactory.accelerator(
            settings,
            configuration: configuration,
            threads: threads,
            logger: logger
        )
        return try await MicroVMEngine.open(configuration, threads: threads, logger: logger)
    }

    /// What the greeting tells of the first user's key.
    private enum FirstKey {
        /// It was created at this start.
        case created(String)
        /// It was created before, and is in this file.
        case file(String)
        /// The operator removed the file.
        case removed
    }

    /// Creates the first user and their key at the first start.
    private func firstKey(_ database: Database, plan: Plan) async throws -> FirstKey {
        let users = UserStore(database)
        let path = settings.data.firstKey
        guard try await users.list().isEmpty else {
            return FileManager.default.fileExists(atPath: path) ? .file(path) : .removed
        }
        let user = try await users.create(email: "admin@localhost", plan: plan.name)
        let (text, made) = try await APIKeyStore(database).create(for: user.id, label: "first key")
        var keyEvent = AuditEvent(.keyCreated, by: .system, owner: user.id)
        keyEvent.resourceID = String(made.id)
        try await AuditStore(database).append([AuditEvent(.userCreated, by: .system, owner: user.id), keyEvent])
        // Nobody else can read it: see `Swiftlet.main()`.
        guard FileManager.default.createFile(atPath: path, contents: Data("\(text)\n".utf8)) else {
            throw ValidationError("\(path) cannot be written")
        }
        return .created(text)
    }

    private static func greet(host: String, port: Int, key: FirstKey, accelerator: Accelerator?) {
        let shown = host == "0.0.0.0" || host == "::" ? "127.0.0.1" : host
        let url = "http://\(shown):\(port)"
        let how =
            switch accelerator {
            case .kvm: "KVM"
            case .tcg: "software emulation (TCG); see docs/threat-model.md before you run hostile code"
            case nil: "no guest image yet: run `swiftlet image build`, or `swiftlet image import FILE`"
            }
        print("Swiftlet \(Swiftlet.version) listens on \(url), with \(how).")
        // A key is printed once, when it is created: what starts the server may keep its output.
        switch key {
        case .created(let text):
            print("\nUser: admin@localhost\nKey:  \(text)\n\nTry it:\n\n\(curl(url, key: text))")
        case .file(let path):
            print("\nThe key of admin@localhost is in \(path). Try it:\n\n\(curl(url, key: "$(cat '\(path)')"))")
        case .removed:
            break
        }
        fflush(nil)
    }

    /// A first call, to be pasted into a shell.
    private static func curl(_ url: String, key: String) -> String {
        """
          curl -s \(url)/execute -H "X-API-Key: \(key)" -H 'Content-Type: application/json' \\
            -d '{"command": "print(40 + 2)"}'

        """
    }
}
