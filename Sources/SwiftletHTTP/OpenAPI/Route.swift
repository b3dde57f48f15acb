// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletCore

/// A path, a method, and their operation.
struct Endpoint: Sendable {
    let method: HTTPRequest.Method
    /// With `{name}` for a variable segment, and `**` at the end for some.
    let path: String
    let operation: Operation

    /// The path as the document has it: OpenAPI has no word for a parameter of several segments.
    var documentedPath: String { path.replacing("**", with: "{path}") }
}

/// An endpoint and its handler.
struct Route: Sendable {
    typealias Handler = @Sendable (Request, AppContext) async throws -> Response

    let endpoint: Endpoint
    let handler: Handler
    /// The type of its audit event; nil when it is not audited.
    let audit: AuditEventType?

    var method: HTTPRequest.Method { endpoint.method }
    var path: String { endpoint.path }

    init(
        _ method: HTTPRequest.Method,
        _ path: String,
        _ operation: Operation,
        _ handler: @escaping Handler,
        audit: AuditEventType? = nil
    ) {
        self.init(Endpoint(method: method, path: path, operation: operation), handler, audit: audit)
    }

    init(_ endpoint: Endpoint, _ handler: @escaping Handler, audit: AuditEventType? = nil) {
        self.endpoint = endpoint
        self.handler = handler
        self.audit = audit
    }
}
