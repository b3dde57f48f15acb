// SPDX-License-Identifier: Apache-2.0

/// What a request needs to know of its user.
package struct Account: Equatable, Sendable {
    package let id: UserID
    package let email: String
    package let name: String
    package let planName: String
    /// Tokens of another generation are worthless.
    package let tokenGeneration: Int64
    package let isDisabled: Bool

    package init(
        id: UserID,
        email: String,
        name: String,
        planName: String,
        tokenGeneration: Int64,
        isDisabled: Bool
    ) {
        self.id = id
        self.email = email
        self.name = name
        self.planName = planName
        self.tokenGeneration = tokenGeneration
        self.isDisabled = isDisabled
    }
}

/// A valid API key and the account that it belongs to.
package struct APIKeyOwner: Equatable, Sendable {
    package let account: Account
    package let keyID: Int64
    /// Microseconds since 1970; nil when the key does not expire.
    package let expiresAt: Int64?

    package init(account: Account, keyID: Int64, expiresAt: Int64?) {
        self.account = account
        self.keyID = keyID
        self.expiresAt = expiresAt
    }
}
