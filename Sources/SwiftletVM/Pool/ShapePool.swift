// SPDX-License-Identifier: Apache-2.0

import NIOCore

/// The machines of one shape that wait, and the callers that wait for one.
struct ShapePool<Machine: PooledMachine> {
    struct Caller {
        let promise: EventLoopPromise<(Machine, MachineOrigin)>
        let since: ContinuousClock.Instant
    }

    var plan: PoolPolicy
    var idle: [Machine] = []
    var callers: [PoolPolicy.Ticket: Caller] = [:]
    var usedAt: ContinuousClock.Instant
    /// Refills that failed since the last that did not.
    private var failures = 0
    /// No refill begins before.
    private(set) var refillsFrom: ContinuousClock.Instant

    init(plan: PoolPolicy, at now: ContinuousClock.Instant) {
        self.plan = plan
        usedAt = now
        refillsFrom = now
    }

    /// No caller waits for a machine, and none is being started.
    var isQuiet: Bool { callers.isEmpty && plan.starting + plan.refilling == 0 }

    /// Since when a caller waits for which no machine is being started.
    var waitingSince: ContinuousClock.Instant? {
        guard plan.unserved > 0, let first = plan.queue.first else { return nil }
        return callers[first]?.since
    }

    /// The next refill begins 1, 2, 4, ... and at most 64 seconds after a failed one.
    mutating func refillFailed(at now: ContinuousClock.Instant) {
        refillsFrom = now + .seconds(1 << min(failures, 6))
        failures += 1
    }

    mutating func refillSucceeded() { failures = 0 }
}
