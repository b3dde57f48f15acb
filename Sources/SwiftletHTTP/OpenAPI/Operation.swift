// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletJSON

/// The parameters, body and responses of a route, for the API's description. Every route has one.
struct Operation: Sendable {
    /// The groups in which a reader finds operations.
    enum Tag: String, CaseIterable, Sendable {
        case execution = "Execution"
        case sessions = "Sessions"
        case files = "Files"
        case users = "Users"
        case keys = "API keys"
        case logIn = "Log-in"
        case audit = "Audit"
        case server = "Server"
    }

    /// Whose requests are answered.
    enum Access: Sendable {
        /// Anybody's.
        case open
        /// Those with a key or a token.
        case key
    }

    var id: String
    var tag: Tag
    var summary: String
    var description: String
    var access: Access
    var parameters: [Parameter]
    var body: Content?
    /// Successes, and refusals that look like no other's.
    var replies: [Reply]
    var refusals: Set<ErrorResponse>

    /// - Parameter refusals: those that are its own. What all operations with a key have is added, and so is what comes with a body.
    init(
        _ id: String,
        _ tag: Tag,
        _ summary: String,
        _ description: String = "",
        access: Access = .key,
        parameters: [Parameter] = [],
        body: Content? = nil,
        replies: [Reply],
        refusals: Set<ErrorResponse> = []
    ) {
        self.id = id
        self.tag = tag
        self.summary = summary
        self.description = description
        self.access = access
        self.parameters = parameters
        self.body = body
        self.replies = replies
        self.refusals = refusals
        if access == .key { self.refusals.formUnion([.unauthorized, .tooManyRequests, .unavailable]) }
        if let body, !body.isStream { self.refusals.formUnion(ErrorResponse.ofBodies) }
        if parameters.contains(where: { $0.place == .query }) { self.refusals.insert(.invalid) }
    }
}

/// Something that a request carries beside its body.
struct Parameter: Sendable {
    enum Place: String, Sendable {
        case path
        case query
        case header
    }

    let name: String
    let place: Place
    let description: String
    let schema: Schema

    static func path(_ name: String, _ description: String, _ schema: Schema) -> Parameter {
        Parameter(name: name, place: .path, description: description, schema: schema)
    }

    static func query(_ name: String, _ description: String, _ schema: Schema) -> Parameter {
        Parameter(name: name, place: .query, description: description, schema: schema)
    }

    static func header(_ name: String, _ description: String, _ schema: Schema) -> Parameter {
        Parameter(name: name, place: .header, description: description, schema: schema)
    }
}

/// A header of an answer.
struct Header: Sendable {
    let name: String
    let description: String
    let schema: Schema
    let isRequired: Bool

    init(_ name: String, _ description: String, _ schema: Schema = .string(), isRequired: Bool = false) {
        self.name = name
        self.description = description
        self.schema = schema
        self.isRequired = isRequired
    }
}

/// A body, in each of the media types that it may have.
struct Content: Sendable {
    var types: [(name: String, schema: Schema)]
    var isRequired = true
    var example: JSONValue?

    static func json(_ schema: Schema, isRequired: Bool = true, example: JSONValue? = nil) -> Content {
        Content(types: [("application/json", schema)], isRequired: isRequired, example: example)
    }

    static func form(_ schema: Schema) -> Content {
        Content(types: [("application/x-www-form-urlencoded", schema)])
    }

    static func bytes(_ type: String = "application/octet-stream") -> Content {
        Content(types: [(type, .bytes)])
    }

    /// Whether it is taken as it comes, whatever its size.
    var isStream: Bool { types.contains { $0.name == "application/octet-stream" || $0.name == "multipart/form-data" } }

    func or(_ other: Content) -> Content {
        Content(types: types + other.types, isRequired: isRequired, example: example ?? other.example)
    }
}

/// An answer.
struct Reply: Sendable {
    var status: HTTPResponse.Status
    var description: String
    var content: Content?
    var headers: [Header]

    init(
        _ status: HTTPResponse.Status,
        _ description: String,
        _ content: Content? = nil,
        headers: [Header] = []
    ) {
        self.status = status
        self.description = description
        self.content = content
        self.headers = headers
    }

    /// 200 with JSON.
    static func ok(_ description: String, _ schema: Schema, headers: [Header] = []) -> Reply {
        Reply(.ok, description, .json(schema), headers: headers)
    }
}
