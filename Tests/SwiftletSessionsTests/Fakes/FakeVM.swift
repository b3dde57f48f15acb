// SPDX-License-Identifier: Apache-2.0

import AgentClient
import Foundation
import NIOCore
import NIOPosix
import SwiftletCore
import SwiftletVM
import Synchronization

/// Makes VMs without QEMU, and remembers all that it made.
final class FakeVMProvider: VMProvider {
    private struct State {
        var spawned: [FakeVM] = []
        var failure: MicroVMError?
        var startsByHand = false
        var endsByHand = false
    }

    private let time: any TimeSource
    private let state = Mutex(State())

    init(time: any TimeSource) {
        self.time = time
    }

    /// All VMs, dead or alive, in the order of their start.
    var spawned: [FakeVM] { state.withLock { $0.spawned } }

    var living: [FakeVM] { spawned.filter { $0.end == nil } }

    /// Lets every further `spawn` fail; nil ends that.
    func refuse(_ failure: MicroVMError?) {
        state.withLock { $0.failure = failure }
    }

    /// VMs stay in their start until the test calls `FakeVM.start()`.
    func startByHand() {
        state.withLock { $0.startsByHand = true }
    }

    /// A killed VM stays until the test calls `FakeVM.vanish()`.
    func endByHand() {
        state.withLock { $0.endsByHand = true }
    }

    func spawn(
        _ shape: VMShape,
        environment: [String: String],
        diskLimit: UInt64?
    ) throws -> any VirtualMachine {
        try state.withLock { state in
            if let failure = state.failure { throw failure }
            let number = state.spawned.count + 1
            let vm = FakeVM("vm-\(number)", shape: shape, time: time, endsByHand: state.endsByHand)
            if !state.startsByHand { vm.start() }
            state.spawned.append(vm)
            return vm
        }
    }

    func run() async {
        // Until it is cancelled, as the real one.
        try? await Task.sleep(for: .seconds(3_600))
        for vm in spawned {
            vm.kill(reason: "The server shut down")
            vm.vanish()
        }
    }

    var numbers: EngineNumbers {
        get async {
            EngineNumbers(
                capacity: HostCapacity(limits: .init(memory: .init(machine: 1 << 20)))
            )
        }
    }
}

/// A VM that consists of its agent alone.
final class FakeVM: VirtualMachine {
    private struct State {
        var end: VMEnd?
        var isRunning = false
        var isGone = false
        var endWaiters = 0
    }

    let id: String
    let shape: VMShape
    let startedAt: Date
    let started: ContinuousClock.Instant
    let fakeAgent = FakeAgent()
    private let time: any TimeSource
    private let endsByHand: Bool
    private let state = Mutex(State())
    private let ready = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
    private let gone = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: VMEnd.self)

    init(_ id: String, shape: VMShape, time: any TimeSource, endsByHand: Bool) {
        self.id = id
        self.shape = shape
        self.time = time
        self.endsByHand = endsByHand
        startedAt = time.date
        started = time.now
    }

    var end: VMEnd? { state.withLock { $0.end } }
    var isRunning: Bool { state.withLock { $0.isRunning && $0.end == nil } }

    var restore: VMRestore? {
        isRunning ? VMRestore(generation: id, origin: "pool", template: "t", confirmed: ["rng"], milliseconds: 1) : nil
    }

    func start() {
        state.withLock { $0.isRunning = true }
        ready.succeed()
    }

    func agent(until deadline: ContinuousClock.Instant) async throws -> (any GuestAgent)? {
        if state.withLock({ $0.isRunning }) {
            if let end { throw MicroVMError.ended(end) }
            return fakeAgent
        }
        return try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask { [ready] in
                try await ready.futureResult.get()
                return true
            }
            group.addTask { [time] in
                do {
                    try await time.sleep(until: deadline)
                } catch {
                    // The start came first.
                }
                return false
            }
            defer { group.cancelAll() }
            return try await group.next() == true ? fakeAgent : nil
        }
    }

    /// How many times its end was waited for.
    var endWaiters: Int { state.withLock { $0.endWaiters } }

    func waitForEnd() async throws -> VMEnd {
        state.withLock { $0.endWaiters += 1 }
        return try await gone.futureResult.get()
    }

    func kill(reason: String) {
        die(.killed(reason: reason))
    }

    /// Ends it for a reason of its own; what runs in it breaks off.
    func die(_ end: VMEnd) {
        let isFirst = state.withLock { state in
            guard state.end == nil else { return false }
            state.end = end
            return true
        }
        guard isFirst else { return }
        ready.fail(MicroVMError.ended(end))
        fakeAgent.breakOff(MicroVMError.ended(end))
        if !endsByHand { vanish() }
    }

    /// Nothing of it is left from now on.
    func vanish() {
        gone.succeed(end ?? .guestReset)
    }
}
