// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletJSON

/// The API's description (OpenAPI 3.1), made of the routes' operations.
struct OpenAPIDocument: Sendable {
    private let endpoints: [Endpoint]
    private let version: String
    private var headers: [(name: String, header: Header)] = [("RequestID", .requestID)]

    init(_ endpoints: [Endpoint], version: String) {
        self.endpoints = endpoints
        self.version = version
        headers += Header.rateLimits.map { ($0.name.replacing("-", with: ""), $0) }
    }

    var json: JSONValue {
        var writer = Writer(headers: headers)
        let paths = writer.paths(endpoints)
        let responses = ErrorResponse.allCases.map {
            JSONValue.Field(name: $0.rawValue, value: writer.response($0.reply, isLimited: true))
        }
        return [
            "openapi": "3.1.0",
            "info": info,
            "servers": [["url": "/"]],
            "tags": .array(
                Operation.Tag.allCases.map { ["name": .string($0.rawValue), "description": .string($0.about)] }
            ),
            "paths": .object(paths),
            "components": [
                "schemas": .object(
                    writer.schemas.sorted { $0.key < $1.key }.map { .init(name: $0.key, value: $0.value) }
                ),
                "responses": .object(responses),
                "headers": .object(headers.map { .init(name: $0.name, value: writer.header($0.header)) }),
                "securitySchemes": Self.securitySchemes,
            ],
        ]
    }

    private var info: JSONValue {
        [
            "title": "Swiftlet",
            "version": .string(version),
            "summary": "Runs untrusted code in microVMs behind one HTTP call.",
            "description": """
            A key goes into `X-API-Key`, `Authorization: Bearer`, or `api_key` in a JSON body or form where one is described; a token of \
            `POST /token` goes into `Authorization: Bearer`. Paths are served with and without a slash at their end. Errors are \
            `{"detail": "..."}`. Null is as good as leaving a field out, and a number in a string is a number. \
            A method that a path does not have is 405, and `HEAD` is there wherever `GET` is.
            """,
            "license": ["name": "Apache 2.0", "identifier": "Apache-2.0"],
        ]
    }

    private static let securitySchemes: JSONValue = [
        "APIKeyHeader": [
            "type": "apiKey", "in": "header", "name": "X-API-Key",
            "description":
                "A key of `swiftlet key create` or `POST /v1/api-keys/`; it may come as `api_key` in a body instead.",
        ],
        "OAuth2PasswordBearer": [
            "type": "oauth2",
            "description": "A token of `POST /token`. A key is taken in its place.",
            "flows": ["password": ["tokenUrl": "/token", "scopes": [:]]],
        ],
    ]
}

/// Writes the parts of a document, and collects the named schemas that they need.
private struct Writer {
    let headers: [(name: String, header: Header)]
    private(set) var schemas: [String: JSONValue] = [:]

    init(headers: [(name: String, header: Header)]) {
        self.headers = headers
    }

    mutating func paths(_ endpoints: [Endpoint]) -> [JSONValue.Field] {
        var paths: [(name: String, methods: [JSONValue.Field])] = []
        for endpoint in endpoints {
            let method = JSONValue.Field(
                name: endpoint.method.rawValue.lowercased(),
                value: operation(endpoint.operation)
            )
            let path = endpoint.documentedPath
            if let index = paths.firstIndex(where: { $0.name == path }) {
                paths[index].methods.append(method)
            } else {
                paths.append((path, [method]))
            }
        }
        return paths.map { .init(name: $0.name, value: .object($0.methods)) }
    }

    private mutating func operation(_ operation: Operation) -> JSONValue {
        var fields: [JSONValue.Field] = [
            .init(name: "operationId", value: .string(operation.id)),
            .init(name: "tags", value: [.string(operation.tag.rawValue)]),
            .init(name: "summary", value: .string(operation.summary)),
        ]
        if !operation.description.isEmpty {
            fields.append(.init(name: "description", value: .string(operation.description)))
        }
        let security: JSONValue =
            operation.access == .key ? [["APIKeyHeader": []], ["OAuth2PasswordBearer": []]] : []
        fields.append(.init(name: "security", value: security))
        if !operation.parameters.isEmpty {
            fields.append(.init(name: "parameters", value: .array(operation.parameters.map { parameter($0) })))
        }
        if let body = operation.body {
            let value: JSONValue = ["required": .bool(body.isRequired), "content": content(body)]
            fields.append(.init(name: "requestBody", value: value))
        }
        fields.append(.init(name: "responses", value: responses(of: operation)))
        return .object(fields)
    }

    private mutating func responses(of operation: Operation) -> JSONValue {
        var responses = operation.replies.map {
            (status: $0.status.code, value: response($0, isLimited: operation.access == .key))
        }
        for refusal in operation.refusals {
            responses.append(
                (refusal.reply.status.code, ["$ref": .string("#/components/responses/\(refusal.rawValue)")])
            )
        }
        return .object(responses.sorted { $0.status < $1.status }.map { .init(name: "\($0.status)", value: $0.value) })
    }

    private mutating func parameter(_ parameter: Parameter) -> JSONValue {
        schemas.merge(parameter.schema.components) { $1 }
        return [
            "name": .string(parameter.name),
            "in": .string(parameter.place.rawValue),
            "required": .bool(parameter.place == .path),
            "description": .string(parameter.description),
            "schema": parameter.schema.json,
        ]
    }

    private mutating func content(_ content: Content) -> JSONValue {
        .object(
            content.types.map { type in
                schemas.merge(type.schema.components) { $1 }
                var media: [JSONValue.Field] = [.init(name: "schema", value: type.schema.json)]
                if let example = content.example { media.append(.init(name: "example", value: example)) }
                return .init(name: type.name, value: .object(media))
            }
        )
    }

    /// - Parameter isLimited: whether a user's limits apply.
    mutating func response(_ reply: Reply, isLimited: Bool) -> JSONValue {
        let shared = headers.filter { isLimited || $0.name == "RequestID" }.map {
            JSONValue.Field(name: $0.header.name, value: ["$ref": .string("#/components/headers/\($0.name)")])
        }
        let own = reply.headers.map { JSONValue.Field(name: $0.name, value: header($0)) }
        var fields: [JSONValue.Field] = [
            .init(name: "description", value: .string(reply.description)),
            .init(name: "headers", value: .object(own + shared)),
        ]
        if let body = reply.content { fields.append(.init(name: "content", value: content(body))) }
        return .object(fields)
    }

    mutating func header(_ header: Header) -> JSONValue {
        schemas.merge(header.schema.components) { $1 }
        return [
            "description": .string(header.description),
            "required": .bool(header.isRequired),
            "schema": header.schema.json,
        ]
    }
}

extension Operation.Tag {
    fileprivate var about: String {
        switch self {
        case .execution: "Running code, and what became of it."
        case .sessions:
            "A session is a caller's handle on a microVM: it is spawned when it is needed and killed after its lifetime."
        case .files: "Files in a session's microVM."
        case .users: "Who the caller is, what their plan allows and what they have used."
        case .keys: "The caller's own API keys."
        case .logIn: "Tokens, and the log-in of command lines with a browser."
        case .audit: "Who did what, when and from where."
        case .server: "The server itself."
        }
    }
}
