// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletStore

/// Finds out whose request it is.
struct Authenticator: Sendable {
    let keys: KeyStore

    /// The user of a request.
    ///
    /// A key in a header counts before one in the body; a wrong one is not made good by another.
    /// - Throws: `APIError.notAuthenticated` without a key, `APIError.invalidKey` with a wrong one.
    func user(_ headers: HTTPFields, bodyKey: String? = nil) async throws -> UserID {
        guard let key = Self.headerKey(headers) ?? bodyKey else { throw APIError.notAuthenticated }
        guard let user = try await keys.authenticate(key) else { throw APIError.invalidKey }
        return user
    }

    /// Whether a header carries a key, a wrong one included.
    static func hasKey(_ headers: HTTPFields) -> Bool { headerKey(headers) != nil }

    private static func headerKey(_ headers: HTTPFields) -> String? {
        if let name = HTTPField.Name("X-API-Key"), let key = headers[name], !key.isEmpty { return key }
        guard let authorization = headers[.authorization] else { return nil }
        let words = authorization.split(separator: " ", maxSplits: 1)
        guard words.count == 2, words[0].lowercased() == "bearer" else { return nil }
        return String(words[1])
    }
}
