// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore

/// Why a user's plan refused.
package enum AdmissionError: Error, Sendable, CustomStringConvertible {
    /// The plan does not have so many.
    case quotaExceeded(reason: String, limit: RateDecision)
    /// The plan does not have it at all.
    case forbidden(reason: String)
    /// The plan cannot be looked up or counted; the reason is for the operator's log alone.
    case limitsUnavailable(reason: String)

    package var description: String {
        switch self {
        case .quotaExceeded(let reason, _), .forbidden(let reason): reason
        case .limitsUnavailable: "The server cannot check plans and limits at the moment; try again soon"
        }
    }
}
