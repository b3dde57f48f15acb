// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// What VMs have taken while they lived: their time, weighed with their size.
package struct VMUsage: Equatable, Sendable {
    package var vmSeconds = 0.0
    package var vcpuSeconds = 0.0
    package var memoryGiBSeconds = 0.0

    package init() {}

    /// Counts a VM of some size for some seconds.
    package mutating func add(seconds: Double, vcpuCount: Int, memoryMB: Int) {
        vmSeconds += seconds
        vcpuSeconds += seconds * Double(vcpuCount)
        memoryGiBSeconds += seconds * Double(memoryMB) / 1024
    }

    package static func + (one: VMUsage, other: VMUsage) -> VMUsage {
        var sum = one
        sum.vmSeconds += other.vmSeconds
        sum.vcpuSeconds += other.vcpuSeconds
        sum.memoryGiBSeconds += other.memoryGiBSeconds
        return sum
    }
}

/// What a session has used so far.
package struct SessionUsage: Equatable, Sendable {
    /// VMs that it was given.
    package var vmCount = 0
    package var vms = VMUsage()
    /// Executions that ended, of those that are still remembered.
    package var executionCount = 0
    /// Seconds of processor time and on the clock that they took.
    package var cpuTime = 0.0
    package var executionTime = 0.0
    package var outputBytes = 0

    package init() {}
}

/// What VMs have taken on each day of a period; a VM that lives over midnight counts for both days.
package struct DailyUsage: Equatable, Sendable {
    package let first: UTCDay
    /// One entry a day, in order.
    package private(set) var days: [VMUsage]

    /// - Parameter days: the period, which must not be empty.
    package init(_ days: ClosedRange<UTCDay>) {
        first = days.lowerBound
        self.days = [VMUsage](repeating: VMUsage(), count: days.upperBound.number - days.lowerBound.number + 1)
    }

    /// Counts a VM that lived from one moment to another; what of it is outside the period does not count.
    package mutating func add(from start: Date, to end: Date, vcpuCount: Int, memoryMB: Int) {
        let first = max(UTCDay(containing: start).number, first.number)
        let last = min(UTCDay(containing: end).number, self.first.number + days.count - 1)
        guard first <= last else { return }
        for number in first...last {
            let day = UTCDay(number: number)
            let seconds = min(end, day.advanced(by: 1).start).timeIntervalSince(max(start, day.start))
            days[number - self.first.number].add(seconds: max(0, seconds), vcpuCount: vcpuCount, memoryMB: memoryMB)
        }
    }

    /// All days together.
    package var total: VMUsage { days.reduce(VMUsage(), +) }
}
