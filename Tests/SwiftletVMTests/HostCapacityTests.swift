// SPDX-License-Identifier: Apache-2.0

import SwiftletVM
import Testing

@Suite struct HostCapacityTests {
    private let small = VMShape(memoryMB: 448, vcpuCount: 1)

    private func capacity(vms: Int = 10, memoryMB: Int = 10_000, starting: Int = 10) -> HostCapacity {
        let memory = MemoryPolicy.Limits(machine: 1 << 20, budget: memoryMB, overcommit: 1)
        return HostCapacity(limits: .init(vms: vms, memory: memory, starting: starting))
    }

    @Test func eachLimitRefusesWithItsReason() throws {
        var byCount = capacity(vms: 1)
        try byCount.admit(small)
        #expect(throws: MicroVMError.full(reason: "All 1 microVMs of this node are in use")) {
            try byCount.admit(small)
        }
        var byMemory = capacity(memoryMB: 1_000)
        try byMemory.admit(small)
        let refusal = #expect(throws: MicroVMError.self) { try byMemory.admit(small) }
        #expect(refusal?.description.contains("488 of 1000 MiB of memory left") == true)
        #expect(refusal?.description.contains("memoryBudgetMb, memoryOvercommit") == true)
        var byStarts = capacity(starting: 1)
        try byStarts.admit(small)
        #expect(throws: MicroVMError.self) { try byStarts.admit(small) }
        byStarts.started()
        try byStarts.admit(small)
    }

    @Test func processorsAreNoLimit() throws {
        var capacity = capacity(vms: 1_000, memoryMB: 1 << 20, starting: 1_000)
        for _ in 0..<1_000 { try capacity.admit(VMShape(memoryMB: 128, vcpuCount: 8)) }
    }

    @Test func overcommitmentPromisesTheBudgetSeveralTimes() throws {
        let memory = MemoryPolicy.Limits(machine: 1 << 20, budget: 1_024, overcommit: 2)
        var capacity = HostCapacity(limits: .init(memory: memory))
        for _ in 0..<4 { try capacity.admit(small) }
        #expect(throws: MicroVMError.self) { try capacity.admit(small) }
    }

    @Test func whatIsReleasedCanBeTakenAgainAndARefusalTakesNothing() throws {
        var capacity = capacity(memoryMB: 512)
        for _ in 0..<100 {
            try capacity.admit(small)
            #expect(throws: MicroVMError.self) { try capacity.admit(small) }
            capacity.started()
            capacity.release(small)
        }
        #expect(capacity.vms == 0 && capacity.memoryMB == 0 && capacity.starting == 0)
    }
}
