// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore

/// Why an attempt to log in was refused before its password was checked.
package enum LoginError: Error, Sendable {
    /// A limit on attempts was reached; the reason is for the caller.
    case tooManyAttempts(reason: String, limit: RateDecision)
    /// As many passwords as may are being checked already.
    ///
    /// - Parameter owner: the account whose address was given; nil when there is none.
    case verifierBusy(owner: UserID?)
}
