// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import SwiftletCore
package import SwiftletStore
import Synchronization

/// Limits of rates, kept in the database: exact across all processes that use it, and as they were after a restart.
package final class RateLimiter: Sendable {
    /// A refusal stands until its end whatever others do, so that a flood of refused attempts never reaches the database.
    private struct CachedDenial {
        let rate: Plan.Rate
        let from: Int64
        let until: Int64
    }

    private static let maximumCachedDenials = 10_000
    private let store: RateStore
    private let now: @Sendable () -> Date
    private let cachedDenials = Mutex<[String: CachedDenial]>([:])

    /// - Parameter now: the clock; it may be set back at any time.
    package init(_ database: Database, now: @escaping @Sendable () -> Date = { Date() }) {
        store = RateStore(database)
        self.now = now
    }

    /// Counts one attempt against a limit, and decides about it.
    package func charge(_ name: String, _ rate: Plan.Rate) async throws -> RateDecision {
        if let denial = cachedDenial(name, rate) { return denial }
        let cell = GCRA(rate)
        let (moment, decision) = try await store.charge(name, cell) { [now] in now().microseconds }
        if !decision.isAdmitted { remember(name, rate, decision, at: moment) }
        return decision
    }

    /// The decision that an attempt would get now; charges nothing.
    package func status(_ name: String, _ rate: Plan.Rate) async throws -> RateDecision {
        let stored = try await store.wholeAt(name)
        return GCRA(rate).status(whole: stored ?? 0, now: now().microseconds)
    }

    /// Forgets the limits that are whole: having no row is the same.
    package func purge() async throws {
        try await store.purge(wholeBefore: now().microseconds)
    }

    private func cachedDenial(_ name: String, _ rate: Plan.Rate) -> RateDecision? {
        guard let denial = cachedDenials.withLock({ $0[name] }), denial.rate == rate else { return nil }
        let moment = now().microseconds
        // Before its beginning means that the clock was set back: the database knows what to do then.
        guard (denial.from..<denial.until).contains(moment) else {
            cachedDenials.withLock { $0[name] = nil }
            return nil
        }
        let cell = GCRA(rate)
        let whole = denial.until + cell.interval * (cell.burst - 1)
        var decision = cell.status(whole: whole, now: moment)
        decision.isAdmitted = false
        return decision
    }

    private func remember(_ name: String, _ rate: Plan.Rate, _ decision: RateDecision, at moment: Int64) {
        let until = moment + Int64(decision.retryAfter * 1e6)
        cachedDenials.withLock { cachedDenials in
            if cachedDenials.count >= Self.maximumCachedDenials { cachedDenials.removeAll() }
            cachedDenials[name] = CachedDenial(rate: rate, from: moment, until: until)
        }
    }
}
