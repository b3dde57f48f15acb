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
    private var transfers = 0
    private var isRetired = false
    /// The VM's place in its owner's plan.
    private var reservation: VMReservation?
    private var isReserving = false
    private var waitingForReservation: [CheckedContinuation<Void, Never>] = []
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

    /// Counts another transfer of a file in, within a limit.
    func beginTransfer(limit: Int) -> Bool {
        guard transfers < limit else { return false }
        transfers += 1
        return true
    }

    func endTransfer() {
        transfers -= 1
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

    /// Gives the runtime up if nobody takes part and nothing is left of a VM.
    ///
    /// From then on nobody can enter: two runtimes of one session could have two VMs.
    func retireIfIdle() -> Bool {
        // While something is left of the VM the next caller must wait for it here.
        guard users == 0, reservation?.isReleased ?? true else { return false }
        isRetired = true
        return true
    }

    /// The session's living VM, or a new one when there is none.
    ///
    /// A new one is spawned only when nothing is left of the one before: a session never has two.
    /// - Parameters:
    ///   - admission: where the VM is reserved first; callers that come together reserve one.
    ///   - started: called with a new VM before anybody else can see it; from then on the reservation is the callee's.
    func lease(
        admission: SessionAdmission,
        started: @Sendable (MicroVM, VMReservation) -> Void
    ) async throws -> MicroVM {
        while true {
            if let current = vm {
                guard current.end != nil else { return current }
                _ = try await current.waitForEnd()
                // Another caller may have been faster while we waited.
                if vm === current {
                    reservation?.release()
                    vm = nil
                }
            } else if isReserving {
                await withCheckedContinuation { waitingForReservation.append($0) }
            } else {
                return try await spawn(admission, started: started)
            }
        }
    }

    /// Gives back the place of the VM if nothing is left of it, so that another can be had at once.
    func releaseEnded(_ ended: MicroVM) {
        if vm === ended { reservation?.release() }
    }

    private func spawn(
        _ admission: SessionAdmission,
        started: @Sendable (MicroVM, VMReservation) -> Void
    ) async throws -> MicroVM {
        isReserving = true
        defer {
            isReserving = false
            waitingForReservation.forEach { $0.resume() }
            waitingForReservation = []
        }
        let wish = SessionOptions(
            vmLifetimeSeconds: record.vmLifetimeSeconds,
            memoryMB: record.memoryMB,
            vcpuCount: record.vcpuCount
        )
        guard !isDeleted else { throw SessionError.notFound(record.id) }
        let place = try await admission.reserve(for: record.owner, options: wish)
        do {
            // It may have been deleted meanwhile.
            guard !isDeleted else { throw SessionError.notFound(record.id) }
            let fresh = try engine.spawn(
                VMShape(memoryMB: record.memoryMB, vcpuCount: record.vcpuCount),
                environment: record.environment,
                diskLimit: place.plan.diskMB.map { UInt64($0) << 20 }
            )
            vm = fresh
            reservation = place
            started(fresh, place)
            return fresh
        } catch {
            place.release()
            throw error
        }
    }
}
