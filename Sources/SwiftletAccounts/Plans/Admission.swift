// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore
package import SwiftletMetrics
import Synchronization

/// Holds users to their plans where VMs are made and code is taken in: how large, how many at once, how many a minute.
package final class Admission: Sendable {
    /// Refusals, by the limit that was reached.
    package let refusals = Counter(
        "swiftlet_rate_limit_refusals_total",
        "What was refused because of a limit on users or addresses, by limit."
    )
    private let accounts: AccountLookup
    private let limiter: RateLimiter
    private let living = ConcurrencyLimiter()
    private let running = ConcurrencyLimiter()

    package init(accounts: AccountLookup, limiter: RateLimiter) {
        self.accounts = accounts
        self.limiter = limiter
    }

    /// A user's plan, as it was at most a second ago.
    ///
    /// - Throws: `AdmissionError.limitsUnavailable` when it cannot be found out.
    package func plan(of user: UserID) async throws -> Plan {
        try await Self.failingClosed { try await accounts.plan(of: user) }
    }

    /// The name of a user's limit on new VMs.
    package static func newVMs(of user: UserID) -> String { "vm:\(user)" }

    /// How many VMs of a user live or are about to.
    package func livingVMs(of user: UserID) -> Int {
        living.count(of: user)
    }

    /// Makes sure that a user may have a session like this.
    ///
    /// - Throws: `AdmissionError.forbidden` with the message by which clients recognise that they must request less.
    package func check(_ options: SessionOptions, plan: Plan) throws {
        if let limit = plan.vmLifetimeSeconds, let asked = options.vmLifetimeSeconds, asked > limit {
            throw AdmissionError.forbidden(reason: "VM lifetime cannot exceed \(limit)s on the \(plan.name) tier")
        }
        if let limit = plan.memoryMB, let asked = options.memoryMB, asked > limit {
            throw AdmissionError.forbidden(reason: "Configurable memory ends at \(limit) MB on the \(plan.name) tier")
        }
        if let limit = plan.vcpuCount, let asked = options.vcpuCount, asked > limit {
            throw AdmissionError.forbidden(reason: "Configurable CPU ends at \(limit) vCPUs on the \(plan.name) tier")
        }
    }

    /// Reserves a VM, before it is spawned.
    ///
    /// - Parameter options: of the VM; the plan may have become smaller since its session was created.
    /// - Throws: `AdmissionError.quotaExceeded`, `.forbidden`, or `.limitsUnavailable` when it cannot be found out.
    package func reserve(for user: UserID, options: SessionOptions = SessionOptions()) async throws -> VMReservation {
        let plan = try await plan(of: user)
        try check(options, plan: plan)
        if let limit = living.acquire(for: user, upTo: plan.concurrentVMs) {
            refusals.add(["limit": "concurrent_vms"])
            throw AdmissionError.quotaExceeded(
                reason: "Rate limit exceeded: the \(plan.name) plan has \(limit) VMs at once, and so many live; "
                    + "kill one, or wait for one to end",
                limit: .refusal(limit: limit, retryAfter: 5)
            )
        }
        let reservation = VMReservation(plan: plan) { [living] in living.release(user) }
        do {
            try await charge(user, plan)
        } catch {
            reservation.release()
            throw error
        }
        return reservation
    }

    // MARK: Executions

    /// How many executions of a user wait or run.
    package func runningExecutions(of user: UserID) -> Int {
        running.count(of: user)
    }

    /// Takes one more execution of a user in, until ``executionEnded(for:)``.
    ///
    /// - Returns: the plan under which it was admitted.
    /// - Throws: `AdmissionError.quotaExceeded`, or `.limitsUnavailable` when it cannot be found out.
    package func executionBegins(for user: UserID) async throws -> Plan {
        let plan = try await plan(of: user)
        if let limit = running.acquire(for: user, upTo: plan.concurrentExecutions) {
            refusals.add(["limit": "concurrent_executions"])
            throw AdmissionError.quotaExceeded(
                reason: "Rate limit exceeded: the \(plan.name) plan has \(limit) executions at once, and so many "
                    + "wait or run; cancel one, or wait for one to end",
                limit: .refusal(limit: limit, retryAfter: 1)
            )
        }
        return plan
    }

    package func executionEnded(for user: UserID) {
        running.release(user)
    }

    private func charge(_ user: UserID, _ plan: Plan) async throws {
        guard let rate = plan.newVMs else { return }
        let decision = try await Self.failingClosed { try await limiter.charge(Self.newVMs(of: user), rate) }
        guard !decision.isAdmitted else { return }
        refusals.add(["limit": "new_vms"])
        throw AdmissionError.quotaExceeded(
            reason: "Rate limit exceeded: the \(plan.name) plan has \(rate.perMinute) new VMs per minute",
            limit: decision
        )
    }

    /// If the limiter fails, the call is refused.
    private static func failingClosed<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
        do {
            return try await body()
        } catch let error as CancellationError {
            throw error
        } catch {
            throw AdmissionError.limitsUnavailable(reason: "\(error)")
        }
    }
}
