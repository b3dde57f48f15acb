// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore

/// An authenticated user with their plan.
package struct Principal: Sendable {
    /// The credential that authenticated the request.
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
