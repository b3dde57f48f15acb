// SPDX-License-Identifier: Apache-2.0

/// What a user may do, and how much of it; nil is no limit.
package struct Plan: Equatable, Sendable {
    /// So many a minute in the long run, and so many at once.
    package struct Rate: Equatable, Sendable {
        package var perMinute: Int
        package var burst: Int

        package init(perMinute: Int, burst: Int) {
            self.perMinute = perMinute
            self.burst = burst
        }
    }

    package var name: String
    package var requests: Rate?
    package var newVMs: Rate?
    package var concurrentVMs: Int?
    package var concurrentExecutions: Int?
    /// The longest life of a VM.
    package var vmLifetimeSeconds: Int?
    package var memoryMB: Int?
    package var vcpuCount: Int?
    /// What a VM may write to its disk; the server's own limit counts if it is lower.
    package var diskMB: Int?
    /// Bytes kept of each of stdout and stderr; the server's own limit counts if it is lower.
    package var outputLimitBytes: Int?
    /// Whether anything may leave the user's VMs.
    package var allowsEgress: Bool

    /// A plan without limits, to which some are then given.
    package init(name: String, allowsEgress: Bool = true) {
        self.name = name
        self.allowsEgress = allowsEgress
    }

    /// No limits.
    package static let unlimited = Plan(name: "unlimited")

    package static var free: Plan {
        var plan = Plan(name: "free", allowsEgress: false)
        plan.requests = Rate(perMinute: 60, burst: 30)
        plan.newVMs = Rate(perMinute: 10, burst: 5)
        plan.concurrentVMs = 2
        plan.concurrentExecutions = 4
        plan.vmLifetimeSeconds = 3_600
        plan.memoryMB = 512
        plan.vcpuCount = 2
        plan.diskMB = 1_024
        plan.outputLimitBytes = 16 << 20
        return plan
    }

    package static var pro: Plan {
        var plan = Plan(name: "pro")
        plan.requests = Rate(perMinute: 1_200, burst: 200)
        plan.newVMs = Rate(perMinute: 120, burst: 20)
        plan.concurrentVMs = 20
        plan.concurrentExecutions = 64
        plan.vmLifetimeSeconds = 86_400
        plan.memoryMB = 4_096
        plan.vcpuCount = 4
        plan.diskMB = 4_096
        plan.outputLimitBytes = 128 << 20
        return plan
    }
}
