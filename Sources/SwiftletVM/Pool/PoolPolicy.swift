// SPDX-License-Identifier: Apache-2.0

import SwiftletCore

/// Decides for one shape how many machines wait, who gets the next, and when one more is to be restored.
///
/// Events in, actions out; no clock and no machine inside. A caller takes a waiting machine if there is one; else it queues, and
/// what is restored goes to whoever has queued longest.
package struct PoolPolicy: Sendable {
    package struct Limits: Equatable, Sendable {
        /// Machines that wait whatever the demand.
        package var minimum: Int
        /// Machines that wait at the most.
        package var maximum: Int
        /// How long demand counts.
        package var memory: Duration = .seconds(60)

        package init(minimum: Int, maximum: Int) {
            self.minimum = minimum
            self.maximum = max(minimum, maximum)
        }
    }

    /// A caller in the queue.
    package typealias Ticket = UInt64

    package let limits: Limits
    /// Machines that wait, paused.
    package private(set) var idle = 0
    /// Machines on their way for callers.
    package private(set) var starting = 0
    /// Machines on their way for the pool.
    package private(set) var refilling = 0
    /// Callers, the first come first.
    package private(set) var queue: [Ticket] = []
    private var demand: [ContinuousClock.Instant] = []
    private var lastTicket: Ticket = 0

    package init(limits: Limits) {
        self.limits = limits
    }

    package enum Request: Equatable, Sendable {
        /// Take one of the waiting machines.
        case hit
        case queued(Ticket)
    }

    /// A caller needs a machine.
    package mutating func request(at now: ContinuousClock.Instant) -> Request {
        demand.removeAll { $0 + limits.memory <= now }
        // More would change no target.
        if demand.count > limits.maximum { demand.removeFirst() }
        demand.append(now)
        if idle > 0 {
            idle -= 1
            return .hit
        }
        lastTicket += 1
        queue.append(lastTicket)
        return .queued(lastTicket)
    }

    /// A queued caller has gone; false when it had been served already.
    package mutating func leave(_ ticket: Ticket) -> Bool {
        guard let index = queue.firstIndex(of: ticket) else { return false }
        queue.remove(at: index)
        return true
    }

    /// Callers that wait for a machine nobody has begun to restore.
    package var unserved: Int { max(0, queue.count - starting) }

    /// How many machines should wait: as many as were asked for lately, within the limits.
    package func target(at now: ContinuousClock.Instant) -> Int {
        let recent = demand.count { $0 + limits.memory > now }
        return min(max(limits.minimum, recent), limits.maximum)
    }

    /// How many machines the pool lacks, callers apart.
    package func deficit(at now: ContinuousClock.Instant) -> Int {
        max(0, target(at: now) - idle - refilling)
    }

    /// One more is being restored, for a caller or for the pool.
    package mutating func start(isRefill: Bool) {
        if isRefill { refilling += 1 } else { starting += 1 }
    }

    package enum Delivery: Equatable, Sendable {
        /// Give it to this caller.
        case give(Ticket)
        /// It waits.
        case keep
        /// The caller that it was for was served otherwise: it goes on as the pool's.
        case refill
    }

    /// A machine is there.
    package mutating func started(isRefill: Bool) -> Delivery {
        if isRefill { refilling -= 1 } else { starting -= 1 }
        if !queue.isEmpty { return .give(queue.removeFirst()) }
        if isRefill {
            idle += 1
            return .keep
        }
        refilling += 1
        return .refill
    }

    /// A machine could not be had: the first caller in the queue is told, if it was for callers. A refill is nobody's.
    package mutating func failed(isRefill: Bool) -> Ticket? {
        if isRefill {
            refilling -= 1
            return nil
        }
        starting -= 1
        return queue.isEmpty ? nil : queue.removeFirst()
    }

    /// A waiting machine died, or was given up.
    package mutating func lost() {
        idle -= 1
    }

    /// How many waiting machines are too many by now.
    package func surplus(at now: ContinuousClock.Instant) -> Int {
        max(0, idle - target(at: now))
    }
}
