// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
package import Hummingbird
package import Logging
import NIOCore
package import SwiftletAccounts
import SwiftletCore
import SwiftletJSON
package import SwiftletSessions
package import SwiftletStore

/// How the HTTP server listens.
package struct ServerConfiguration: Sendable {
    package var host: String
    package var port: Int
    /// The largest request body, in bytes.
    package var maximumBody: Int
    /// The server's version, for `/health`.
    package var version: String

    package init(
        host: String = "127.0.0.1",
        port: Int = Defaults.port,
        maximumBody: Int = Defaults.bodyBytes,
        version: String
    ) {
        self.host = host
        self.port = port
        self.maximumBody = maximumBody
        self.version = version
    }
}

/// The services that the routes use.
package struct ServerServices: Sendable {
    package var sessions: any SessionAPI
    package var executions: any ExecutionAPI
    package var files: any FileAPI
    package var accounts: AccountServices
    package var usage: UsageStore
    package var audit: AuditBuffer

    package init(
        sessions: any SessionAPI,
        executions: any ExecutionAPI,
        files: any FileAPI,
        accounts: AccountServices,
        usage: UsageStore,
        audit: AuditBuffer
    ) {
        self.sessions = sessions
        self.executions = executions
        self.files = files
        self.accounts = accounts
        self.usage = usage
        self.audit = audit
    }
}

/// The HTTP API over the services that it serves.
package struct SwiftletApplication: Sendable {
    private let services: ServerServices
    private let configuration: ServerConfiguration
    private let addresses: ClientAddressResolver

    package init(services: ServerServices, configuration: ServerConfiguration) {
        self.services = services
        addresses = ClientAddressResolver(proxies: services.accounts.proxies, logger: services.accounts.logger)
        self.configuration = configuration
    }

    /// All routes, in the groups that serve them.
    private func routes(_ metrics: HTTPMetrics) -> [Route] {
        let authenticator = Authenticator(accounts: services.accounts)
        let (sessions, executions) = (services.sessions, services.executions)
        let limit = configuration.maximumBody
        let groups = [
            ExecuteRoutes(executions: executions, authenticator: authenticator, maximumBody: limit).routes,
            ExecutionRoutes(executions: executions, authenticator: authenticator).routes,
            SessionRoutes(sessions: sessions, authenticator: authenticator, maximumBody: limit).routes,
            SessionChangeRoutes(sessions: sessions, authenticator: authenticator, maximumBody: limit).routes,
            UsageRoutes(sessions: sessions, usage: services.usage, authenticator: authenticator).routes,
            FileRoutes(files: services.files, authenticator: authenticator).routes,
            UploadRoute(files: services.files, authenticator: authenticator).routes,
            DownloadRoute(files: services.files, authenticator: authenticator, maximumBody: limit).routes,
            MetricsRoute(services: services, http: metrics).routes,
            AuditRoutes(log: services.audit, authenticator: authenticator).routes,
            TokenRoute(accounts: services.accounts, addresses: addresses).routes,
            CommandLineLogin(accounts: services.accounts, addresses: addresses).routes,
            UserRoutes(authenticator: authenticator).routes,
            KeyRoutes(authenticator: authenticator, maximumBody: limit).routes,
            HealthRoute(version: configuration.version).routes,
        ]
        let routes = groups.flatMap(\.self)
        return routes + DocumentRoutes(routes.map(\.endpoint), version: configuration.version).routes
    }

    /// The routes behind the middleware that all of them share.
    package func router() -> Router<AppContext> {
        let metrics = HTTPMetrics()
        let routes = routes(metrics)
        let router = Router(context: AppContext.self, options: .autoGenerateHeadEndpoints)
        let methods = PathMethods(entries: routes.map { ($0.path, $0.method) })
        let auditMiddleware = AuditMiddleware(log: services.audit, addresses: addresses)
        router.addMiddleware {
            RateLimitMiddleware()
            RequestMiddleware(methods: methods, metrics: metrics, auditMiddleware: auditMiddleware)
            ErrorMiddleware(methods: methods)
            ContinueMiddleware()
        }
        for route in routes {
            router.on(RouterPath(route.path), method: route.method) { request, context in
                RequestAuditContext.record { $0.set(route, id: context.parameters.get("id")) }
                return try await route.handler(request, context)
            }
        }
        return router
    }

    /// The server, to be run as a service.
    ///
    /// - Parameter onStart: called with the port once it listens.
    package func application(
        logger: Logger,
        onStart: @escaping @Sendable (Int?) async -> Void = { _ in }
    ) -> some ApplicationProtocol {
        Application(
            router: router(),
            server: .http1(configuration: .init(idleTimeout: .seconds(120))),
            configuration: ApplicationConfiguration(
                address: .hostname(configuration.host, port: configuration.port),
                serverName: "swiftlet"
            ),
            onServerRunning: { channel in await onStart(channel.localAddress?.port) },
            logger: logger
        )
    }
}

extension Response {
    /// A success with a JSON body.
    init(json value: JSONValue) {
        var buffer = ByteBuffer()
        value.write(to: &buffer)
        self.init(status: .ok, headers: [.contentType: "application/json"], body: ResponseBody(byteBuffer: buffer))
    }
}

extension Request {
    /// The whole body.
    ///
    /// - Throws: `APIError.bodyTooLarge` over the limit.
    func collected(upTo limit: Int) async throws -> ByteBuffer {
        if let length = headers[.contentLength].flatMap({ Int($0) }), length > limit {
            throw APIError.bodyTooLarge(limit: limit)
        }
        do {
            return try await body.collect(upTo: limit)
        } catch is NIOTooManyBytesError {
            throw APIError.bodyTooLarge(limit: limit)
        }
    }
}
