// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore

extension RateLimiter {
    /// A network has more attempts than one of its client addresses, and fewer than all of them.
    private static let networkShare = 5

    /// Counts an attempt for a client address and for the network that it is in.
    ///
    /// - Throws: `LoginError.tooManyAttempts` over the limit of one of them.
    package func charge(_ clientAddress: ClientAddress, for purpose: String, _ rate: Plan.Rate) async throws {
        var limits = [(name: clientAddress.name, rate: rate)]
        if let network = clientAddress.network {
            let share = Plan.Rate(perMinute: rate.perMinute * Self.networkShare, burst: rate.burst * Self.networkShare)
            limits.append((name: network, rate: share))
        }
        for limit in limits {
            let decision = try await charge("\(purpose):\(limit.name)", limit.rate)
            guard decision.isAdmitted else {
                throw LoginError.tooManyAttempts(reason: "Too many log-ins from your address", limit: decision)
            }
        }
    }
}
