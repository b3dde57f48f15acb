// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// A person or program that owns sessions.
package struct User: Equatable, Sendable {
    package let id: UserID
    package let email: String
    package let createdAt: Date
    package let name: String
    /// The name of their plan.
    package let plan: String
    /// When they were shut out; nil while they are not.
    package let disabledAt: Date?

    package init(id: UserID, email: String, createdAt: Date, name: String, plan: String, disabledAt: Date?) {
        self.id = id
        self.email = email
        self.createdAt = createdAt
        self.name = name
        self.plan = plan
        self.disabledAt = disabledAt
    }
}
