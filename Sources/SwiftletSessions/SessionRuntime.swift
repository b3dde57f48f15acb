// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletStore
import SwiftletVM
import Synchronization

/// A session that has, had or is about to get a VM on this node.
actor SessionRuntime {
    /// The session as it was read or changed last.
    nonisolated var record: SessionRecord { latest.withLock { $0 } }
    /// Calls that share an interpreter run one after another.
    let pythonTurns = TurnQueue(limit: 64)
    let javascriptTurns = TurnQueue(limit: 64)

    private let engine: MicroVMEngine
    private var vm: MicroVM?
    private var users = 0
    private var isRetired = false
    private var isDeleted = false
    private let latest: Mutex<SessionRecord>

    enum Entry {
        /// The caller takes part, until it calls `leave()`.
        case entered
        /// As many take part as may.
        case full
        /// The runtime was given up meanwhile; the session needs a new one.
        case retired
        /// The session was deleted.
        case deleted
    }

    init(record: SessionRecord, engine: MicroVMEngine) {
        latest = Mutex(record)
        self.engine = engine
    }

    /// The session's VM, dead or alive.
    var currentVM: MicroVM? { vm }

    /// Takes part in the session, within a limit.
    func enter(limit: Int) -> Entry {
        guard !isDeleted else { return .deleted }
        guard !isRetired else { return .retired }
        guard users < limit else { return .full }
        users += 1
        return .entered
    }

    func leave() {
        users -= 1
    }

    /// Takes over what can be changed of a session. Its lifetime only grows, in whatever order changes come here.
    nonisolated func adopt(_ changed: SessionRecord) {
        latest.withLock {
            $0.vmLifetimeSeconds = max($0.vmLifetimeSeconds, changed.vmLifetimeSeconds)
            $0.metadataJSON = changed.metadataJSON
        }
    }

    /// The session is deleted: from now on nobody enters, and it gets no VM.
    func delete() {
        isDeleted = true
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
        guard !isDeleted else { throw SessionError.notFound(record.id) }
        let shape = VMShape(memoryMB: record.memoryMB, vcpuCount: record.vcpuCount)
        let fresh = try engine.spawn(shape, environment: record.environment)
        vm = fresh
        started(fresh)
        return fresh
    }
}
