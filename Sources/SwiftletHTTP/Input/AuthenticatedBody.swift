// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import NIOCore
import SwiftletCore

/// The body of a request whose key may be in it.
struct AuthenticatedBody: Sendable {
    /// Bytes that are read before the caller is authenticated.
    static let anonymousLimit = 1 << 20

    let bytes: ByteBuffer
    private let request: Request
    private let authenticator: Authenticator
    /// The user whom a header authenticated; nil when no header has a credential.
    private let known: UserID?

    /// Reads a body. A credential in a header is checked before any of it is read.
    ///
    /// - Throws: `APIError`: as `Authenticator.user`, and 413 over the limit.
    init(of request: Request, upTo limit: Int, _ authenticator: Authenticator) async throws {
        self.request = request
        self.authenticator = authenticator
        if Authenticator.hasCredential(request.headers) {
            known = try await authenticator.user(request.headers)
            bytes = try await request.collected(upTo: limit)
        } else {
            known = nil
            do {
                bytes = try await request.collected(upTo: min(limit, Self.anonymousLimit))
            } catch let error as APIError where error.status == .contentTooLarge && limit > Self.anonymousLimit {
                throw APIError(
                    .contentTooLarge,
                    "The request's body is larger than \(Self.anonymousLimit) bytes: send the key in X-API-Key"
                )
            }
        }
    }

    /// The request's user.
    ///
    /// - Parameter key: the key in the body, which counts if no header has one.
    func user(key: String?) async throws -> UserID {
        if let known { return known }
        return try await authenticator.user(request.headers, bodyKey: key)
    }
}
