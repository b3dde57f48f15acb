// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore
import SwiftletTestSupport
import Synchronization

// The pool, the library and what they stand on are internal to their module.
@testable import SwiftletVM

/// A machine without QEMU: it lives until it is killed.
final class FakeMachine: PooledMachine {
    let shape: VMShape
    let template: LoadedTemplate?
    private let state = Locked<VMEnd?>(nil)
    private let ended = AsyncStream.makeStream(of: Never.self)

    init(_ shape: VMShape, template: LoadedTemplate?) {
        self.shape = shape
        self.template = template
    }

    var end: VMEnd? { state.value }

    func run() async {
        // Ends with the stream, or with the task.
        for await _ in ended.stream {}
        kill(.killed(reason: "The server shut down"))
    }

    func kill(_ end: VMEnd) {
        state.withLock { if $0 == nil { $0 = end } }
        ended.continuation.finish()
    }
}

/// Starts fake machines, and counts what it is asked for.
final class FakeMachineSource: MachineSource {
    struct Failure: Error {}

    private struct State {
        var machines: [FakeMachine] = []
        var spawns: [ContinuousClock.Instant] = []
        var refilling = 0
        var maximumRefilling = 0
        var spawnsFail = false
        var unrestorable: Set<String> = []
        var restores: Gate?
    }

    private let time: any TimeSource
    private let state = Mutex(State())

    init(time: any TimeSource) {
        self.time = time
    }

    var machines: [FakeMachine] { state.withLock { $0.machines } }
    /// When each machine was asked for.
    var spawns: [ContinuousClock.Instant] { state.withLock { $0.spawns } }
    /// Refills that ran at the same time, at the most.
    var maximumRefilling: Int { state.withLock { $0.maximumRefilling } }

    func failSpawns(_ spawnsFail: Bool) {
        state.withLock { $0.spawnsFail = spawnsFail }
    }

    /// The state of the template with this name is not accepted.
    func refuseState(of template: String) {
        state.withLock { _ = $0.unrestorable.insert(template) }
    }

    /// Restores wait at the gate.
    func holdRestores(at gate: Gate) {
        state.withLock { $0.restores = gate }
    }

    func spawn(_ shape: VMShape, from template: LoadedTemplate?, isRefill: Bool) async throws -> FakeMachine {
        try state.withLock { state in
            state.spawns.append(time.now)
            if state.spawnsFail { throw Failure() }
            if isRefill {
                state.refilling += 1
                state.maximumRefilling = max(state.maximumRefilling, state.refilling)
            }
            let machine = FakeMachine(shape, template: template)
            state.machines.append(machine)
            return machine
        }
    }

    func boot(_ machine: FakeMachine) async throws {}

    func restore(_ machine: FakeMachine, isRefill: Bool) async throws {
        if let gate = state.withLock({ $0.restores }) { try await gate.pass() }
        let name = machine.template?.template.name ?? ""
        try state.withLock { if $0.unrestorable.contains(name) { throw Failure() } }
    }

    func rehearse(_ machine: FakeMachine) async throws {
        // Long enough for the next refill to be considered.
        try await time.sleep(for: .seconds(3))
        state.withLock { $0.refilling -= 1 }
    }
}

/// Templates that are kept in a dictionary instead of a directory.
final class FakeTemplateSource: TemplateSource {
    struct Failure: Error {}

    private struct State {
        var stored: [VMShape: String] = [:]
        var builds: [VMShape] = []
        var building = 0
        var maximumBuilding = 0
        var removed: [String] = []
        var buildsFail = false
        var gate: Gate?
        var loaded: [Weak] = []
    }

    private struct Weak {
        weak var memory: SealedMemory?
    }

    private let state = Mutex(State())

    /// Shapes whose templates were built, or begun to be, in this order.
    var builds: [VMShape] { state.withLock { $0.builds } }
    var maximumBuilding: Int { state.withLock { $0.maximumBuilding } }
    /// Names of templates that were removed.
    var removed: [String] { state.withLock { $0.removed } }
    /// Templates whose memory is not released.
    var loadedCount: Int { state.withLock { $0.loaded.count { $0.memory != nil } } }

    /// Puts a template on the disk.
    func store(_ name: String, _ shape: VMShape) {
        state.withLock { $0.stored[shape] = name }
    }

    func failBuilds(_ buildsFail: Bool) {
        state.withLock { $0.buildsFail = buildsFail }
    }

    /// Loads and builds wait at the gate.
    func hold(at gate: Gate) {
        state.withLock { $0.gate = gate }
    }

    func load(_ shape: VMShape) async throws -> LoadedTemplate? {
        if let gate = state.withLock({ $0.gate }) { try await gate.pass() }
        guard let name = state.withLock({ $0.stored[shape] }) else { return nil }
        return try template(name, shape)
    }

    func build(_ shape: VMShape, isWanted: @Sendable () -> Bool) async throws -> LoadedTemplate? {
        guard isWanted() else { return nil }
        if let stored = state.withLock({ $0.stored[shape] }) { return try template(stored, shape) }
        let name = state.withLock { state in
            state.builds.append(shape)
            state.building += 1
            state.maximumBuilding = max(state.maximumBuilding, state.building)
            return "built-\(state.builds.count)"
        }
        defer { state.withLock { $0.building -= 1 } }
        if let gate = state.withLock({ $0.gate }) { try await gate.pass() }
        try state.withLock { state in
            if state.buildsFail { throw Failure() }
            state.stored[shape] = name
        }
        return try template(name, shape)
    }

    func remove(_ template: Template) async {
        state.withLock { state in
            state.removed.append(template.name)
            state.stored = state.stored.filter { $0.value != template.name }
        }
    }

    func evict(keeping names: Set<String>) async {}

    private func template(_ name: String, _ shape: VMShape) throws -> LoadedTemplate {
        let identity = TemplateIdentity(
            image: "",
            imageDigests: [:],
            initramfs: "",
            shape: shape,
            accelerator: .tcg,
            qemu: "",
            processor: "",
            arguments: []
        )
        let manifest = TemplateManifest(
            identity: identity,
            createdAt: Date(timeIntervalSince1970: 0),
            tscKHz: 0,
            memorySize: 4_096,
            stateDigest: "",
            diskDigest: ""
        )
        let memory = try SealedMemory.make(size: 4_096)
        state.withLock { $0.loaded.append(Weak(memory: memory)) }
        return LoadedTemplate(template: Template(directory: "/templates/\(name)", manifest: manifest), memory: memory)
    }
}

/// Holds tasks up until a test lets them pass.
final class Gate: Sendable {
    private let arrivals = AsyncStream.makeStream(of: Void.self)
    private let passes = AsyncSemaphore(permits: 0)

    /// Waits until a task has arrived; one call for each.
    func arrived() async {
        for await _ in arrivals.stream { return }
    }

    /// Lets one task pass.
    func open() {
        passes.release()
    }

    func pass() async throws {
        arrivals.continuation.yield()
        guard await passes.acquire() == .acquired else { throw CancellationError() }
    }
}
