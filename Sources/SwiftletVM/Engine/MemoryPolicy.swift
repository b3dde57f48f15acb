// SPDX-License-Identifier: Apache-2.0

/// Decides by measured memory whether a node takes another VM, and what it gives up when memory runs short.
///
/// Measurements and requests in, actions out; no clock and no VM inside. All numbers are MiB.
///
/// A part of the machine, the reserve, is never given away. When what is available falls below it, the node gives up, in this order:
/// waiting clones, loaded templates that no machine uses, requests for new VMs, and below half of the reserve the VM that has grown
/// most, one at a time.
package struct MemoryPolicy: Sendable {
    package struct Limits: Equatable, Sendable {
        /// What all VMs may hold.
        package var budget: Int
        /// What is never given away.
        package var reserve: Int
        /// How many times the budget is promised to VMs. At 1 each VM can fill all of its memory.
        package var overcommit: Double

        /// - Parameters:
        ///   - machine: the memory that the server may use.
        ///   - budget: what all VMs may hold; 85 % of the machine unless it is given.
        package init(machine: Int, budget: Int? = nil, overcommit: Double = 2) {
            self.budget = budget ?? machine * 85 / 100
            reserve = min(machine * 15 / 100, self.budget * 15 / 85)
            self.overcommit = overcommit
        }

        /// What may be promised to all VMs together.
        package var promised: Int { Int(Double(budget) * overcommit) }

        /// What a new VM is charged: what a fresh clone holds, and a reserve to grow into. At 1 that is all of its memory, at 2 a
        /// quarter: of more VMs that share a node, fewer are expected to fill their memory.
        package func charge(_ shape: VMShape) -> Int {
            let growth = Int(Double(shape.memoryMB) / (overcommit * overcommit))
            return min(MemoryPolicy.freshClone + growth, shape.memoryMB + HostCapacity.overheadMB)
        }
    }

    /// What the node holds at one moment.
    package struct Sample: Equatable, Sendable {
        /// The kernel's `MemAvailable`.
        package var available: Int
        /// What each VM holds alone, by its id. A VM that has no machine yet is not in it.
        package var vms: [String: Int]
        /// What waiting clones hold alone.
        package var clones: Int
        /// What loaded templates hold that no machine uses.
        package var unusedTemplates: Int
        /// What loaded templates hold that machines use.
        package var usedTemplates: Int

        package init(
            available: Int,
            vms: [String: Int] = [:],
            clones: Int = 0,
            unusedTemplates: Int = 0,
            usedTemplates: Int = 0
        ) {
            self.available = available
            self.vms = vms
            self.clones = clones
            self.unusedTemplates = unusedTemplates
            self.usedTemplates = usedTemplates
        }

        fileprivate var held: Int { vms.values.reduce(0, +) + clones + unusedTemplates + usedTemplates }
    }

    package enum Action: Equatable, Sendable {
        /// End all waiting clones.
        case dropWaitingClones
        /// Release the memory of templates that no machine uses.
        case dropUnusedTemplates
        /// End this VM, for this reason.
        case end(vm: String, reason: String)
    }

    /// What a clone holds alone once it has run a first call.
    package static let freshClone = 96

    package let limits: Limits
    /// What each VM was charged, by its id.
    private var charges: [String: Int] = [:]
    private var sample: Sample
    /// The VM that is being ended.
    private var ending: String?
    /// The last sample may have been taken before the ended VM's memory was free.
    private var isSampleOutdated = false

    package init(limits: Limits, sample: Sample) {
        self.limits = limits
        self.sample = sample
    }

    /// What the node could still take, the reserve included. A budget that is smaller than the machine counts like a machine of
    /// budget and reserve.
    package var available: Int { min(sample.available, limits.budget + limits.reserve - sample.held) }

    /// Whether the reserve is touched.
    package var isUnderPressure: Bool { available < limits.reserve }

    /// Whether one more clone of a shape may be restored to wait.
    package func hasRoomForClone(of shape: VMShape) -> Bool { unpromised >= limits.charge(shape) }

    /// What is above the reserve when every VM holds at least what it was charged.
    private var unpromised: Int {
        let outstanding = charges.reduce(0) { $0 + max(0, $1.value - (sample.vms[$1.key] ?? 0)) }
        return available - limits.reserve - outstanding
    }

    /// Charges a VM that is about to start.
    ///
    /// - Returns: what must be given up for it.
    /// - Throws: `MicroVMError.full` when it does not fit even so; it was not charged then.
    package mutating func admit(_ vm: String, _ shape: VMShape) throws(MicroVMError) -> [Action] {
        let charge = limits.charge(shape)
        var actions: [Action] = []
        if unpromised < charge, sample.clones > 0 {
            actions.append(.dropWaitingClones)
        }
        if unpromised + sample.clones < charge, sample.unusedTemplates > 0 {
            actions.append(.dropUnusedTemplates)
        }
        let reclaimed =
            (actions.contains(.dropWaitingClones) ? sample.clones : 0)
            + (actions.contains(.dropUnusedTemplates) ? sample.unusedTemplates : 0)
        guard unpromised + reclaimed >= charge else {
            throw .full(
                reason:
                    "This node's memory is in use: \(max(0, unpromised)) MiB are free beside a reserve of \(limits.reserve) MiB, and a "
                    + "microVM of \(shape.memoryMB) MiB is charged \(charge) (settings memoryBudgetMb, memoryOvercommit)"
            )
        }
        charges[vm] = charge
        assumeDropped(actions)
        return actions
    }

    /// Counts what is being dropped as free, until the next sample.
    private mutating func assumeDropped(_ actions: [Action]) {
        if actions.contains(.dropWaitingClones) {
            sample.available += sample.clones
            sample.clones = 0
        }
        if actions.contains(.dropUnusedTemplates) {
            sample.available += sample.unusedTemplates
            sample.unusedTemplates = 0
        }
    }

    /// A VM is gone, and its memory is free.
    package mutating func remove(_ vm: String) {
        charges[vm] = nil
        sample.available += sample.vms.removeValue(forKey: vm) ?? 0
        guard ending == vm else { return }
        ending = nil
        isSampleOutdated = true
    }

    /// What the node held a moment ago.
    ///
    /// - Returns: the next thing to give up, when memory is short.
    package mutating func update(_ sample: Sample) -> [Action] {
        self.sample = sample
        let wasOutdated = isSampleOutdated
        isSampleOutdated = false
        guard isUnderPressure else { return [] }
        if sample.clones > 0 { return [.dropWaitingClones] }
        if sample.unusedTemplates > 0 { return [.dropUnusedTemplates] }
        guard available < limits.reserve / 2, ending == nil, !wasOutdated else { return [] }
        // Of two that hold the same the one with the smaller id, so that the choice does not depend on the order of a dictionary.
        let grown = sample.vms.filter { charges[$0.key] != nil }
        guard let victim = grown.min(by: { ($1.value, $0.key) < ($0.value, $1.key) }) else { return [] }
        ending = victim.key
        return [.end(vm: victim.key, reason: reason(for: victim.value))]
    }

    private func reason(for held: Int) -> String {
        "The node ran out of memory: \(max(0, available)) MiB were available, and of its microVMs this one had grown most, to "
            + "\(held) MiB (settings memoryBudgetMb, memoryOvercommit)"
    }
}
