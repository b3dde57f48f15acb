// SPDX-License-Identifier: Apache-2.0

import Foundation
import Hummingbird
import SwiftletAccounts
import SwiftletCore
import SwiftletJSON
import SwiftletStore

/// A user's own API keys. Paths are served with and without a slash at their end.
struct KeyRoutes: Sendable {
    let authenticator: Authenticator
    let maximumBody: Int

    private var keys: APIKeyStore { authenticator.accounts.keys }

    var routes: [Route] {
        [
            Route(.post, "/v1/api-keys", .createKey, create, audit: .keyCreated),
            Route(.get, "/v1/api-keys", .listKeys, list),
            Route(.get, "/v1/api-keys/{id}", .getKey, get),
            Route(.patch, "/v1/api-keys/{id}", .updateKey, update, audit: .keyUpdated),
            Route(.delete, "/v1/api-keys/{id}", .deleteKey, delete, audit: .keyRevoked),
        ]
    }

    /// `POST /v1/api-keys/`: the only answer that has the key's text.
    private func create(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        var reader = try await reader(request)
        let description = description(&reader) ?? ""
        let expiresAt = expiry(&reader)
        try reader.finish()
        let (text, key) = try await authenticator.accounts
            .issueKey(for: user, label: description, expiresAt: expiresAt)
        var fields = Self.fields(of: key)
        fields.append(.init(name: "api_key", value: .string(text)))
        fields.append(.init(name: "key", value: .string(text)))
        return Response(json: .object(fields))
    }

    /// `GET /v1/api-keys/`: an array, oldest first.
    private func list(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let keys = try await keys.list(of: user)
        return Response(json: .array(keys.map { .object(Self.fields(of: $0)) }))
    }

    /// `GET /v1/api-keys/{id}`
    private func get(_ request: Request, _ context: AppContext) async throws -> Response {
        let key = try await requestedKey(request, context)
        return Response(json: .object(Self.fields(of: key)))
    }

    /// `PATCH /v1/api-keys/{id}`: fields that the body does not have keep their values.
    private func update(_ request: Request, _ context: AppContext) async throws -> Response {
        let key = try await requestedKey(request, context)
        var reader = try await reader(request)
        let description = description(&reader) ?? key.label
        let expiresAt = reader.isNull("expires_at") ? nil : expiry(&reader) ?? key.expiresAt
        try reader.finish()
        let changed = try await change(key, label: description, expiresAt: expiresAt)
        guard let changed else { throw Self.notFound(String(key.id)) }
        authenticator.accounts.lookup.invalidate(key.user)
        return Response(json: .object(Self.fields(of: changed)))
    }

    private func change(_ key: APIKey, label: String, expiresAt: Date?) async throws -> APIKey? {
        do {
            let limit = AccountServices.maximumKeys
            return try await keys.update(key.id, of: key.user, label: label, expiresAt: expiresAt, limit: limit)
        } catch let error as TooManyKeys {
            throw APIError(error)
        }
    }

    /// `DELETE /v1/api-keys/{id}`: at once and for good.
    private func delete(_ request: Request, _ context: AppContext) async throws -> Response {
        let key = try await requestedKey(request, context)
        guard try await keys.revoke(key.id) else { throw Self.notFound(String(key.id)) }
        authenticator.accounts.lookup.invalidate(key.user)
        return Response(json: ["status": "success", "id": .integer(Int(key.id))])
    }

    private func requestedKey(_ request: Request, _ context: AppContext) async throws -> APIKey {
        let user = try await authenticator.user(request.headers)
        let text = try context.parameters.require("id")
        guard let id = Int64(text), let key = try await keys.key(id, of: user) else { throw Self.notFound(text) }
        return key
    }

    private static func notFound(_ id: String) -> APIError {
        APIError(.notFound, "API key \(id.prefix(64)) not found")
    }

    /// The body; none is as good as an empty object.
    private func reader(_ request: Request) async throws -> BodyReader {
        let body = try await request.collected(upTo: maximumBody)
        return try BodyReader(body.readableBytes == 0 ? .init(string: "{}") : body)
    }

    private func description(_ reader: inout BodyReader) -> String? {
        guard let text = reader.string("description") else { return nil }
        guard text.utf8.count <= Limits.keyDescriptionBytes, !text.utf8.contains(0) else {
            reader.report(
                "description",
                "string_too_long",
                "String should have at most \(Limits.keyDescriptionBytes) bytes, and no NUL"
            )
            return nil
        }
        return text
    }

    /// `expires_at`, a moment, or `expires_in`, seconds from now.
    private func expiry(_ reader: inout BodyReader) -> Date? {
        let seconds = reader.integer("expires_in", in: Limits.keyLifetimeSeconds)
        guard let text = reader.string("expires_at") else {
            return seconds.map { Date().addingTimeInterval(Double($0)) }
        }
        guard let moment = Date(contractText: text) else {
            let message = "Input should be a valid datetime, such as 2027-01-31T12:00:00Z"
            reader.report("expires_at", "datetime_parsing", message, .string(text))
            return nil
        }
        guard moment > Date(), moment < Date().addingTimeInterval(Double(Limits.keyLifetimeSeconds.upperBound)) else {
            reader.report("expires_at", "datetime_future", "Input should be in the future", .string(text))
            return nil
        }
        return moment
    }

    private static func fields(of key: APIKey) -> [JSONValue.Field] {
        [
            .init(name: "id", value: .integer(Int(key.id))),
            .init(name: "description", value: .string(key.label)),
            .init(name: "prefix", value: .string(key.hint)),
            .init(name: "created_at", value: .init(key.createdAt)),
            .init(name: "last_used_at", value: .init(key.lastUsedAt)),
            .init(name: "expires_at", value: .init(key.expiresAt)),
        ]
    }
}

extension Date {
    /// Reads a moment in ISO 8601; without a zone it is UTC's.
    init?(contractText text: String) {
        guard text.utf8.count <= 40 else { return nil }
        let time = text.split(separator: "T").dropFirst().first ?? ""
        let hasZone = time.hasSuffix("Z") || time.contains("+") || time.contains("-")
        let zoned = hasZone ? text : text + "Z"
        let style = Date.ISO8601FormatStyle(includingFractionalSeconds: text.contains("."))
        guard let moment = try? Date(zoned, strategy: style) else { return nil }
        self = moment
    }
}
