// SPDX-License-Identifier: Apache-2.0

import SwiftletStore

/// Whose request it is, and what they may do.
struct Principal: Sendable {
    /// What the request proved it with.
    enum Credential: Equatable, Sendable {
        case key(Int64)
        case token
    }

    let account: Account
    let plan: Plan
    let credential: Credential

    var user: UserID { account.id }
}
