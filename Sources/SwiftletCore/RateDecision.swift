// SPDX-License-Identifier: Apache-2.0

/// What a rate limit says to an attempt.
package struct RateDecision: Equatable, Sendable {
    package var isAdmitted: Bool
    /// How many may come at once when none came for a while.
    package var limit: Int
    /// How many may come at once now.
    package var remaining: Int
    /// Seconds until the limit is whole again.
    package var resetAfter: Double
    /// Seconds until the next attempt is admitted; 0 after an admission that left something.
    package var retryAfter: Double

    package init(isAdmitted: Bool, limit: Int, remaining: Int, resetAfter: Double, retryAfter: Double) {
        self.isAdmitted = isAdmitted
        self.limit = limit
        self.remaining = remaining
        self.resetAfter = resetAfter
        self.retryAfter = retryAfter
    }

    /// What a limit says that is no rate and has nothing left.
    package static func refusal(limit: Int, retryAfter: Double) -> RateDecision {
        RateDecision(
            isAdmitted: false,
            limit: limit,
            remaining: 0,
            resetAfter: retryAfter,
            retryAfter: retryAfter
        )
    }
}

/// The generic cell rate algorithm: one number for each limit, the moment at which it will be whole again.
///
/// A number further away than the algorithm can have made it was written by a clock that has been set back since. It is taken as
/// an empty bucket: no burst for free, and one interval to wait at most.
package struct GCRA {
    /// Microseconds from one cell to the next.
    package let interval: Int64
    package let burst: Int64

    package init(_ rate: Plan.Rate) {
        interval = max(1, 60_000_000 / Int64(rate.perMinute))
        burst = Int64(rate.burst)
    }

    private var capacity: Int64 { interval * burst }

    /// Decides about one attempt at a moment, and tells the number to keep.
    package func charge(whole stored: Int64, now: Int64) -> (whole: Int64, decision: RateDecision) {
        let debt = debt(stored, now)
        guard debt + interval <= capacity else {
            return (now + debt, decision(debt, isAdmitted: false))
        }
        return (now + debt + interval, decision(debt + interval, isAdmitted: true))
    }

    /// What an attempt would meet.
    package func status(whole stored: Int64, now: Int64) -> RateDecision {
        let debt = debt(stored, now)
        return decision(debt, isAdmitted: debt + interval <= capacity)
    }

    private func debt(_ stored: Int64, _ now: Int64) -> Int64 {
        min(max(0, stored - now), capacity)
    }

    private func decision(_ debt: Int64, isAdmitted: Bool) -> RateDecision {
        RateDecision(
            isAdmitted: isAdmitted,
            limit: Int(burst),
            remaining: Int((capacity - debt) / interval),
            resetAfter: Double(debt) / 1e6,
            retryAfter: Double(max(0, debt + interval - capacity)) / 1e6
        )
    }
}
