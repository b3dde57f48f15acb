// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore

/// Whose request it is, and what they may do.
package struct Principal: Sendable {
    /// What the request proved it with.
    package enum Credential: Equatable, Sendable {
        case key(Int64)
        case token
    }

    package let account: Account
    package let plan: Plan
    package let credential: Credential

    package var user: UserID { account.id }

    package init(account: Account, plan: Plan, credential: Credential) {
        self.account = account
        self.plan = plan
        self.credential = credential
    }
}
