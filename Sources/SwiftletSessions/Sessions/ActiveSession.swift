// SPDX-License-Identifier: Apache-2.0

import SwiftletAccounts
import SwiftletCore
import SwiftletVM
import Synchronization

/// A session that has, had or is about to get a VM on this node.
actor ActiveSession {
    /// The session as it was read or changed last.
    nonisolated var record: SessionRecord { latest.withLock { $0 } }
    /// Calls that share an interpreter run one after another, in the order in which they came.
    nonisolated let pythonTurns: AsyncSemaphore
    nonisolated let javascriptTurns: AsyncSemaphore

    private let provider: any VMProvider
    private var vm: (any VirtualMachine)?
    private var users = 0
    private var transfers = 0
    private var isRetired = false
    /// The VM's place in its owner's plan.
    private var reservation: VMReservation?
    /// Held by the caller that reserves and spawns a VM; those that come meanwhile get the same VM.
    private let spawning: AsyncSemaphore
    private var isDeleted = false
    private let latest: Mutex<SessionRecord>

    enum Entry {
        /// The caller takes part, until it calls `leave()`.
        case entered
        /// As many callers take part as may.
        case full
        /// The object was given up meanwhile; the session needs a new one.
        case retired
        /// The session was deleted.
        case deleted
    }

    init(record: SessionRecord, provider: any VMProvider, time: any TimeSource) {
        latest = Mutex(record)
        self.provider = provider
        pythonTurns = AsyncSemaphore(maximumWaiters: Limits.queuedCallsPerInterpreter, time: time)
        javascriptTurns = AsyncSemaphore(maximumWaiters: Limits.queuedCallsPerInterpreter, time: time)
        spawning = AsyncSemaphore(time: time)
    }

    /// The session's VM, dead or alive.
    var currentVM: (any VirtualMachine)? { vm }

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

    /// The session is deleted: from now on no caller enters, and it gets no VM.
    func delete() {
        isDeleted = true
    }

    /// Gives the object up if no caller takes part and nothing is left of a VM.
    ///
    /// From then on no caller can enter: two objects of one session could have two VMs.
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
    ///   - started: called with a new VM before any other caller can see it; from then on the reservation is the callee's.
    func lease(
        admission: Admission,
        started: @Sendable (any VirtualMachine, VMReservation) -> Void
    ) async throws -> any VirtualMachine {
        while true {
            if let living = try await livingVM() { return living }
            guard await spawning.acquire() == .acquired else { throw CancellationError() }
            defer { spawning.release() }
            // Another caller may have spawned one while this one waited for the lock.
            if vm == nil { return try await spawn(admission, started: started) }
        }
    }

    /// The VM that lives; nil when nothing is left of any.
    private func livingVM() async throws -> (any VirtualMachine)? {
        guard let current = vm else { return nil }
        guard current.end != nil else { return current }
        _ = try await current.waitForEnd()
        // Another caller may have replaced it while this one waited.
        if vm === current {
            reservation?.release()
            vm = nil
        }
        return nil
    }

    /// Gives back the place of the VM if nothing is left of it, so that another can be had at once.
    func releaseEnded(_ ended: any VirtualMachine) {
        if vm === ended { reservation?.release() }
    }

    private func spawn(
        _ admission: Admission,
        started: @Sendable (any VirtualMachine, VMReservation) -> Void
    ) async throws -> any VirtualMachine {
        let options = SessionOptions(
            vmLifetimeSeconds: record.vmLifetimeSeconds,
            memoryMB: record.memoryMB,
            vcpuCount: record.vcpuCount
        )
        guard !isDeleted else { throw SessionError.notFound(record.id) }
        let place = try await admission.reserve(for: record.owner, options: options)
        do {
            // It may have been deleted meanwhile.
            guard !isDeleted else { throw SessionError.notFound(record.id) }
            let fresh = try provider.spawn(
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
