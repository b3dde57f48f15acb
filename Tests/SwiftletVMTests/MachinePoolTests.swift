// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import SwiftletTestSupport
import Testing

@testable import SwiftletVM

/// Pools of machines without QEMU, on a clock that the tests advance.
@Suite(.timeLimit(.minutes(1))) struct MachinePoolTests {
    private typealias Pool = MachinePool<FakeMachineSource>

    private let time = ControlledTime()
    private let source: FakeMachineSource
    private let templates = FakeTemplateSource()
    private let shape = VMShape(memoryMB: 512, vcpuCount: 2)
    private let hasRoom = Locked(true)

    init() {
        source = FakeMachineSource(time: time)
    }

    /// Runs a pool while the body does, and checks that nothing of it is left.
    private func withPool(minimum: Int = 0, maximum: Int = 0, _ body: (Pool) async throws -> Void) async throws {
        let pool = Pool(
            configuration: .init(commonShape: shape, pool: .init(minimum: minimum, maximum: maximum), concurrency: 2),
            source: source,
            templates: TemplateLibrary(source: templates, time: time, logger: .silent),
            time: time,
            logger: .silent,
            hasRoom: { [hasRoom] _ in hasRoom.value }
        )
        let running = Task { await pool.run() }
        do {
            try await body(pool)
        } catch {
            running.cancel()
            throw error
        }
        running.cancel()
        await running.value
        #expect(source.machines.allSatisfy { $0.end != nil })
        await #expect(throws: MicroVMError.self) { try await pool.take(shape) }
    }

    /// Lets time pass until something is so; the time limit of the test ends a wait that never does.
    private func advance(until condition: () async -> Bool) async {
        // The pool sleeps between two looks at itself.
        while await !condition() { await time.advanceToNextDeadline() }
    }

    private func idle(_ pool: Pool) async -> Int { await pool.numbers.idle[shape] ?? 0 }

    @Test func anIntactTemplateThatDoesNotRestoreIsRemovedAndTheVMBoots() async throws {
        templates.store("intact", shape)
        source.refuseState(of: "intact")
        try await withPool { pool in
            let (booted, origin) = try await pool.take(shape)
            #expect(origin == .boot && booted.template == nil && booted.end == nil)
            #expect(templates.removed == ["intact"])
            // The machine that was not restored is gone, and the next VM is a clone of the template that was built instead.
            #expect(source.machines.first?.end != nil)
            await advance { templates.builds == [shape] }
            var next = try await pool.take(shape)
            while next.1 == .boot { next = try await pool.take(shape) }
            #expect(next.1 == .template && next.0.template?.template.name == "built-1")
        }
    }

    @Test func aRefillFromATemplateThatDoesNotRestoreRemovesIt() async throws {
        templates.store("intact", shape)
        source.refuseState(of: "intact")
        try await withPool(minimum: 1, maximum: 1) { pool in
            await advance { await idle(pool) == 1 }
            #expect(templates.removed == ["intact"] && templates.builds == [shape])
            let (machine, origin) = try await pool.take(shape)
            #expect(origin == .pool && machine.template?.template.name == "built-1")
        }
    }

    @Test func aTemplateIsNotBlamedForARestoreThatTheShutdownEnds() async throws {
        templates.store("intact", shape)
        let gate = Gate()
        source.holdRestores(at: gate)
        let taken = Locked<Task<Void, any Error>?>(nil)
        try await withPool { pool in
            let task = Task { _ = try await pool.take(shape) }
            taken.withLock { $0 = task }
            await gate.arrived()
        }
        await #expect(throws: (any Error).self) { try await taken.value?.value }
        #expect(templates.removed.isEmpty)
    }

    @Test func refillsRunOneAtATimeAndStopAtTheLimit() async throws {
        templates.store("template", shape)
        try await withPool(minimum: 3, maximum: 3) { pool in
            await advance { await idle(pool) == 3 }
            let end = time.now + .seconds(30)
            await advance { time.now >= end }
            let waiting = await idle(pool)
            #expect(waiting == 3)
            #expect(source.spawns.count == 3 && source.maximumRefilling == 1)
            let origin = try await pool.take(shape).1
            #expect(origin == .pool)
            await advance { await idle(pool) == 3 }
            #expect(source.spawns.count == 4)
        }
    }

    @Test func refillsThatFailBackOff() async throws {
        templates.store("template", shape)
        source.failSpawns(true)
        try await withPool(minimum: 1, maximum: 1) { pool in
            await advance { source.spawns.count == 6 }
            let pauses = zip(source.spawns.dropFirst(), source.spawns).map { $0 - $1 }
            for (pause, seconds) in zip(pauses, [1, 2, 4, 8, 16]) { #expect(pause >= .seconds(seconds)) }
            // It ends when one succeeds.
            source.failSpawns(false)
            await advance { await idle(pool) == 1 }
            #expect(templates.removed.isEmpty)
        }
    }

    @Test func withoutMemoryWaitingMachinesEndAndNoneIsRestored() async throws {
        templates.store("template", shape)
        try await withPool(minimum: 2, maximum: 2) { pool in
            await advance { await idle(pool) == 2 }
            hasRoom.withLock { $0 = false }
            await pool.dropWaiting()
            #expect(source.machines.allSatisfy { $0.end != nil })
            let end = time.now + .seconds(10)
            await advance { time.now >= end }
            let waiting = await idle(pool)
            #expect(waiting == 0 && source.spawns.count == 2)
            // A caller still gets a machine.
            let origin = try await pool.take(shape).1
            #expect(origin == .template)
            await pool.dropUnusedTemplates(living: [shape])
            #expect(templates.loadedCount == 1)
            hasRoom.withLock { $0 = true }
            await advance { await idle(pool) == 2 }
        }
    }

    @Test func anUnusedTemplateIsReleasedForWantOfMemory() async throws {
        templates.store("template", shape)
        try await withPool { pool in
            let machine = try await pool.take(shape).0
            await pool.dropUnusedTemplates(living: [])
            // The machine itself has it still.
            #expect(templates.loadedCount == 1 && machine.template != nil)
            let origin = try await pool.take(shape).1
            #expect(origin == .template)
            #expect(templates.loadedCount == 2)
        }
    }

    @Test func aPoolThatIsNotUsedForTenMinutesIsGivenUpWithItsTemplate() async throws {
        let other = VMShape(memoryMB: 128, vcpuCount: 1)
        templates.store("other", other)
        try await withPool(maximum: 2) { pool in
            var taken: FakeMachine? = try await pool.take(other).0
            await advance { await pool.numbers.idle[other] == 1 }
            taken?.kill(.killed(reason: "test"))
            taken = nil
            await time.sleepers(atLeast: 1)
            time.advance(by: .seconds(602))
            await advance { await pool.numbers.idle[other] == nil }
            #expect(source.machines.allSatisfy { $0.end != nil })
        }
    }
}
