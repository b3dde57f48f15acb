// SPDX-License-Identifier: Apache-2.0

import Logging
import SwiftletTestSupport
import SwiftletVM
import Testing

/// Admission by measured memory, and what is given up when it runs short, with invented numbers in MiB.
@Suite(.timeLimit(.minutes(5))) struct MemoryPolicyTests {
    private static let shape = VMShape(memoryMB: 512, vcpuCount: 2)
    private static let machine = 24 * 1_024

    /// A machine on which the system takes 2 GiB, and each VM holds what it is told to.
    private struct Machine {
        var vms: [String: Int] = [:]
        var clones = 0
        var unusedTemplates = 0
        let usedTemplates = 200

        var sample: MemoryPolicy.Sample {
            let held = vms.values.reduce(0, +) + clones + unusedTemplates + usedTemplates
            return MemoryPolicy.Sample(
                available: MemoryPolicyTests.machine - 2_048 - held,
                vms: vms,
                clones: clones,
                unusedTemplates: unusedTemplates,
                usedTemplates: usedTemplates
            )
        }
    }

    /// Forty VMs of the default shape, admitted at once, that hold as much as one that has run a first call.
    private func fortyIdleVMs() throws -> (MemoryPolicy, Machine) {
        var machine = Machine(clones: 8 * 78, unusedTemplates: 400)
        var policy = MemoryPolicy(limits: .init(machine: Self.machine), sample: machine.sample)
        var capacity = HostCapacity(limits: .init(memory: policy.limits))
        for number in 10..<50 {
            try capacity.admit(Self.shape)
            #expect(try policy.admit("vm-\(number)", Self.shape) == [])
        }
        for number in 10..<50 { machine.vms["vm-\(number)"] = 220 }
        #expect(policy.update(machine.sample) == [])
        return (policy, machine)
    }

    @Test func fortyIdleSessionsOfTheDefaultShapeFitIn24GiB() throws {
        let (policy, _) = try fortyIdleVMs()
        #expect(!policy.isUnderPressure)
        #expect(policy.hasRoomForClone(of: Self.shape))
    }

    @Test func guestsThatFillTheirMemoryCostClonesThenTemplatesThenNewVMsThenOneVMAtATime() throws {
        var (policy, machine) = try fortyIdleVMs()
        // Available falls below the reserve of 3686.
        for number in 10..<50 { machine.vms["vm-\(number)"] = 460 }
        #expect(policy.update(machine.sample) == [.dropWaitingClones])
        #expect(policy.isUnderPressure && !policy.hasRoomForClone(of: Self.shape))
        machine.clones = 0
        for number in 10..<50 { machine.vms["vm-\(number)"] = 475 }
        #expect(policy.update(machine.sample) == [.dropUnusedTemplates])
        machine.unusedTemplates = 0
        for number in 10..<50 { machine.vms["vm-\(number)"] = 490 }
        #expect(policy.update(machine.sample) == [])
        let refusal = #expect(throws: MicroVMError.self) { try policy.admit("vm-new", Self.shape) }
        #expect(refusal?.description.contains("memoryOvercommit") == true)
        // Below half of the reserve.
        for number in 10..<50 { machine.vms["vm-\(number)"] = 517 }
        machine.vms["vm-31"] = 570
        let first = policy.update(machine.sample)
        guard case .end("vm-31", let reason) = try #require(first.first) else { throw Unexpected(actions: first) }
        #expect(first.count == 1 && reason.contains("570 MiB"))
        // No second one while the first ends, nor by a sample that may be older than its end.
        #expect(policy.update(machine.sample) == [])
        let before = machine.sample
        machine.vms["vm-31"] = nil
        policy.remove("vm-31")
        #expect(policy.update(before) == [])
        // Its end freed too little.
        for number in 10..<50 where number != 31 { machine.vms["vm-\(number)"] = 530 }
        let second = policy.update(machine.sample)
        guard case .end("vm-10", _) = try #require(second.first) else { throw Unexpected(actions: second) }
        policy.remove("vm-10")
        machine.vms["vm-10"] = nil
        for number in 11..<50 where number != 31 { machine.vms["vm-\(number)"] = 480 }
        #expect(policy.update(machine.sample) == [])
        #expect(policy.update(machine.sample) == [])
    }

    private struct Unexpected: Error {
        let actions: [MemoryPolicy.Action]
    }

    @Test func aBurstIsChargedBeforeItsMemoryCanBeMeasured() throws {
        let limits = MemoryPolicy.Limits(machine: 4_000)
        // 600 are the reserve; each VM of 512 is charged 224.
        var policy = MemoryPolicy(limits: limits, sample: .init(available: 2_000))
        #expect(limits.charge(Self.shape) == 224)
        var admitted = 0
        while (try? policy.admit("vm-\(admitted)", Self.shape)) != nil { admitted += 1 }
        #expect(admitted == 6)
        // What they hold by now was charged already.
        let vms = Dictionary(uniqueKeysWithValues: (0..<6).map { ("vm-\($0)", 100) })
        _ = policy.update(.init(available: 1_400, vms: vms))
        #expect(throws: MicroVMError.self) { try policy.admit("vm-6", Self.shape) }
        policy.remove("vm-0")
        _ = try policy.admit("vm-6", Self.shape)
    }

    @Test func aRequestThatFitsWithoutClonesCostsTheClonesAndOneThatDoesNotCostsNothing() throws {
        let sample = MemoryPolicy.Sample(available: 724, clones: 200, unusedTemplates: 300)
        let policy = MemoryPolicy(limits: .init(machine: 4_000), sample: sample)
        var small = policy
        #expect(try small.admit("a", VMShape(memoryMB: 128, vcpuCount: 1)) == [.dropWaitingClones])
        // What is being dropped is counted once.
        #expect(try small.admit("b", Self.shape) == [.dropUnusedTemplates])
        var large = policy
        #expect(
            try large.admit("a", VMShape(memoryMB: 1_024, vcpuCount: 1)) == [.dropWaitingClones, .dropUnusedTemplates]
        )
        var refused = policy
        #expect(throws: MicroVMError.self) { try refused.admit("a", VMShape(memoryMB: 8_192, vcpuCount: 1)) }
        #expect(try refused.admit("b", VMShape(memoryMB: 128, vcpuCount: 1)) == [.dropWaitingClones])
    }

    @Test func aSmallBudgetCountsLikeASmallMachine() throws {
        let limits = MemoryPolicy.Limits(machine: Self.machine, budget: 850)
        #expect(limits.reserve == 150 && limits.promised == 1_700)
        var policy = MemoryPolicy(limits: limits, sample: .init(available: 20_000))
        _ = try policy.admit("vm-1", Self.shape)
        #expect(policy.update(.init(available: 20_000, vms: ["vm-1": 700], usedTemplates: 160)) == [])
        #expect(policy.isUnderPressure)
        let actions = policy.update(.init(available: 20_000, vms: ["vm-1": 780], usedTemplates: 160))
        guard case .end("vm-1", _) = try #require(actions.first) else { throw Unexpected(actions: actions) }
    }

    @Test func withoutOvercommitmentEachVMIsPromisedAndChargedItsWholeSize() throws {
        let limits = MemoryPolicy.Limits(machine: 10_000, overcommit: 1)
        #expect(limits.promised == 8_500)
        #expect(limits.charge(Self.shape) == 512 + HostCapacity.overheadMB)
    }

    @Test func aProcessThatIsNoVMOfOursIsNeverEnded() throws {
        var policy = MemoryPolicy(limits: .init(machine: 4_000), sample: .init(available: 100))
        #expect(policy.update(.init(available: 100, vms: ["vm-released": 500])) == [])
    }

    @Test func theGuardMeasuresMoreOftenUnderPressureAndActs() async throws {
        let time = ControlledTime()
        let machine = Locked(MemoryPolicy.Sample(available: 3_000))
        let memory = MemoryGuard(
            limits: .init(machine: 4_000),
            sample: machine.value,
            time: time,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        )
        try memory.admit("vm-1", Self.shape)
        let (actions, performed) = AsyncStream.makeStream(of: MemoryPolicy.Action.self)
        let measurements = Locked(0)
        let running = Task {
            await memory.run {
                measurements.withLock { $0 += 1 }
                return machine.value
            } perform: {
                performed.yield($0)
            }
        }
        await time.sleepers(atLeast: 1)
        #expect(measurements.value == 1)
        machine.withLock { $0 = .init(available: 200, vms: ["vm-1": 500]) }
        time.advance(by: .milliseconds(999))
        #expect(measurements.value == 1)
        time.advance(by: .milliseconds(1))
        var iterator = actions.makeAsyncIterator()
        guard case .end("vm-1", _) = await iterator.next() else { throw Unexpected(actions: []) }
        await time.sleepers(atLeast: 1)
        time.advance(by: .milliseconds(200))
        while measurements.value < 3 { await Task.yield() }
        #expect(throws: MicroVMError.self) { try memory.admit("vm-2", Self.shape) }
        running.cancel()
        await running.value
    }
}
