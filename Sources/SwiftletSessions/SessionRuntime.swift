// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletStore
import SwiftletVM

/// A session that has, had or is about to get a VM on this node.
actor SessionRuntime {
    let record: SessionRecord
    /// Calls that share an interpreter run one after another.
    let pythonTurns = TurnQueue(limit: 64)
    let javascriptTurns = TurnQueue(limit: 64)

    private let engine: MicroVMEngine
    private var vm: MicroVM?
    private var users = 0
    private var transfers = 0
    private var isRetired = false

    enum Entry {
        /// The caller takes part, until it calls `leave()`.
        case entered
        /// As many take part as may.
        case full
        /// The runtime was given up meanwhile; the session needs a new one.
        case retired
    }

    init(record: SessionRecord, engine: MicroVMEngine) {
        self.record = record
        self.engine = engine
    }

    /// The session's VM, dead or alive.
    var currentVM: MicroVM? { vm }

    /// Takes part in the session, within a limit.
    func enter(limit: Int) -> Entry {
        guard !isRetired else { return .retired }
        guard users < limit else { return .full }
        users += 1
        return .entered
    }

    func leave() {
        users -= 1
    }

    /// Counts another transfer of a file in, within a limit.
    func beginTransfer(limit: Int) -> Bool {
        guard transfers < limit else { return false }
        transfers += 1
        return true
    }

    func endTransfer() {
        transfers -= 1
    }

    /// Gives the runtime up if nobody takes part and no VM lives.
    ///
    /// From then on nobody can enter: two runtimes of one session could have two VMs.
    func retireIfIdle() -> Bool {
        guard users == 0, vm == nil || vm?.end != nil else { return false }
        isRetired = true
        return true
    }

    /// The session's living VM, or a new one when there is none.
    ///
    /// A new one is spawned only when nothing is left of the one before: a session never has two.
    /// - Parameter started: called with a new VM before anybody else can see it.
    func lease(started: @Sendable (MicroVM) -> Void) async throws -> MicroVM {
        while let current = vm {
            guard current.end != nil else { return current }
            _ = try await current.waitForEnd()
            // Another caller may have been faster while we waited.
            if vm === current { vm = nil }
        }
        let shape = VMShape(memoryMB: record.memoryMB, vcpuCount: record.vcpuCount)
        let fresh = try engine.spawn(shape, environment: record.environment)
        vm = fresh
        started(fresh)
        return fresh
    }
}
