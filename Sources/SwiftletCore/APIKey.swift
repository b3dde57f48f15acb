// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// An API key without its text, which only its digest is stored of.
package struct APIKey: Equatable, Sendable {
    package let id: Int64
    package let user: UserID
    package let label: String
    /// The first characters of the key's text.
    package let hint: String
    package let createdAt: Date
    package let revokedAt: Date?
    /// From when on the key is invalid; nil for never.
    package let expiresAt: Date?
    /// When it was last used, to about a minute.
    package let lastUsedAt: Date?

    package init(
        id: Int64,
        user: UserID,
        label: String,
        hint: String,
        createdAt: Date,
        revokedAt: Date?,
        expiresAt: Date?,
        lastUsedAt: Date?
    ) {
        self.id = id
        self.user = user
        self.label = label
        self.hint = hint
        self.createdAt = createdAt
        self.revokedAt = revokedAt
        self.expiresAt = expiresAt
        self.lastUsedAt = lastUsedAt
    }
}

/// A user has as many valid keys as the limit allows.
package struct TooManyKeys: Error, Equatable, Sendable {
    package let limit: Int

    package init(limit: Int) {
        self.limit = limit
    }
}
