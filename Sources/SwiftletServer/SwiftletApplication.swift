// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
package import Hummingbird
package import Logging
import NIOCore
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

    package init(host: String = "127.0.0.1", port: Int = 8000, maximumBody: Int = 32 << 20, version: String) {
        self.host = host
        self.port = port
        self.maximumBody = maximumBody
        self.version = version
    }
}

/// The HTTP API over the services that it serves.
package struct SwiftletApplication: Sendable {
    private let sessions: any SessionAPI
    private let keys: KeyStore
    private let configuration: ServerConfiguration

    package init(sessions: any SessionAPI, keys: KeyStore, configuration: ServerConfiguration) {
        self.sessions = sessions
        self.keys = keys
        self.configuration = configuration
    }

    /// All routes.
    package func router() -> Router<AppContext> {
        let authenticator = Authenticator(keys: keys)
        let limit = configuration.maximumBody
        let execute = ExecuteRoute(sessions: sessions, authenticator: authenticator, maximumBody: limit)
        let session = SessionRoutes(sessions: sessions, authenticator: authenticator, maximumBody: limit)
        let version = configuration.version
        let routes: [(String, HTTPRequest.Method, @Sendable (Request, AppContext) async throws -> Response)] = [
            ("/execute", .post, execute.handle),
            ("/kill", .post, session.kill),
            ("/v1/sessions/session", .post, session.create),
            ("/v1/sessions/session/{id}", .get, session.get),
            ("/v1/sessions/status/{id}", .get, session.status),
            ("/metrics", .get, MetricsRoute(sessions: sessions).handle),
            (
                "/health", .get,
                { _, _ in Response(json: ["status": "ok", "version": .string(version)]) }
            ),
        ]
        let router = Router(context: AppContext.self, options: .autoGenerateHeadEndpoints)
        router.addMiddleware {
            ErrorMiddleware(methods: PathMethods(entries: routes.map { ($0.0, $0.1) }))
        }
        for (path, method, handler) in routes {
            router.on(RouterPath(path), method: method, use: handler)
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
