// SPDX-License-Identifier: Apache-2.0

import NIOCore

/// The machines of one shape that wait, and the callers that wait for one.
struct ShapePool {
    struct Caller {
        var promise: EventLoopPromise<(QEMUMachine, QEMUMachine.Origin)>
        let since = ContinuousClock.now
    }

    var plan: PoolPolicy
    var idle: [QEMUMachine] = []
    var callers: [PoolPolicy.Ticket: Caller] = [:]
    var usedAt = ContinuousClock.now

    /// No caller waits for a machine, and none is being started.
    var isQuiet: Bool { callers.isEmpty && plan.starting + plan.refilling == 0 }

    /// Since when a caller waits for which no machine is being started.
    var waitingSince: ContinuousClock.Instant? {
        guard plan.unserved > 0, let first = plan.queue.first else { return nil }
        return callers[first]?.since
    }
}
