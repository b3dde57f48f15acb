// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import SwiftletAccounts
package import SwiftletCore
import SwiftletStore
import SwiftletVM

/// A session whose VM lives.
package struct Sandbox: Sendable {
    package var record: SessionRecord
    package var vm: SessionVM
    package var state: SessionStatus.VM
    /// The template that the VM is a copy of; nil when it was booted, or while it is not known.
    package var template: String?

    package init(record: SessionRecord, vm: SessionVM, state: SessionStatus.VM, template: String?) {
        self.record = record
        self.vm = vm
        self.state = state
        self.template = template
    }
}

extension SessionService {
    /// The longest that a VM may live, in seconds, counted from its start.
    private static let maximumLifetime = Limits.vmLifetimeSeconds.upperBound
    /// Rows that one statement deletes.
    private static let purgeBatch = 500

    package func sandboxes(owner: UserID) async throws -> [Sandbox] {
        var known = try await store.living(of: owner)
        let mine = active.values.filter { $0.record.owner == owner }
        var found: [Sandbox] = []
        for session in mine {
            guard let vm = await session.currentVM else { continue }
            // What runs here is better known here than in the database, which is written a moment later.
            let record = session.record
            known.removeAll { $0.id == record.id }
            guard vm.end == nil else { continue }
            let state: SessionStatus.VM = vm.isRunning ? .active : .starting
            let assigned = sessionVM(of: vm, record: record)
            found.append(Sandbox(record: record, vm: assigned, state: state, template: vm.restore?.template))
        }
        found += known.compactMap { record in
            record.vm.map { Sandbox(record: record, vm: $0, state: .active, template: nil) }
        }
        return found.sorted { ($1.vm.startedAt, $1.vm.id) < ($0.vm.startedAt, $0.vm.id) }
    }

    package func update(_ id: SessionID, owner: UserID, _ change: SessionChange) async throws -> SessionStatus {
        let before = try await record(id, owner: owner)
        if let seconds = change.vmLifetimeSeconds {
            try checkLifetime(seconds, of: before)
            let wish = SessionOptions(vmLifetimeSeconds: seconds)
            try admission.check(wish, plan: try await admission.plan(of: owner))
        }
        guard let record = try await store.update(id, change) else {
            // Somebody else has lengthened it meanwhile, or deleted it.
            guard let now = try await store.session(id) else { throw SessionError.notFound(id) }
            throw SessionError.lifetime(Self.shortened(now))
        }
        active[id]?.adopt(record)
        return try await status(of: id, owner: owner)
    }

    /// The one place that knows how long a session's VMs may be made to live.
    private func checkLifetime(_ seconds: Int, of record: SessionRecord) throws {
        guard seconds >= record.vmLifetimeSeconds else { throw SessionError.lifetime(Self.shortened(record)) }
        guard seconds <= Self.maximumLifetime else {
            throw SessionError.lifetime("A microVM lives \(Self.maximumLifetime) s at most")
        }
    }

    private static func shortened(_ record: SessionRecord) -> String {
        "Session \(record.id) has a lifetime of \(record.vmLifetimeSeconds) s already, which can only be made longer"
    }

    package func delete(_ id: SessionID, owner: UserID) async throws {
        _ = try await record(id, owner: owner)
        let session = active[id]
        try await end(session)
        guard try await store.delete(id) else { throw SessionError.notFound(id) }
        // A call that was on its way has made another; one that comes later finds no row to write its VM into.
        if let other = active[id], other !== session { try await end(other) }
        active[id] = nil
        Logger.current.notice("Session deleted", metadata: ["session.id": "\(id)"])
    }

    /// Refuses every further call of a session, and waits until nothing of its VM is left.
    func end(_ session: ActiveSession?) async throws {
        guard let session else { return }
        await session.delete()
        guard let vm = await session.currentVM else { return }
        vm.kill(reason: "Its session was deleted")
        _ = try await vm.waitForEnd()
    }

    // MARK: Retention

    /// Deletes what is older than the retention, now and every hour, until it is cancelled.
    func purgeRegularly() async {
        while !Task.isCancelled {
            await purge()
            do {
                try await time.sleep(for: .seconds(3_600))
            } catch {
                return
            }
        }
    }

    private func purge() async {
        let moment = time.date.addingTimeInterval(-Double(configuration.retentionDays) * 86_400)
        do {
            var hasMore = true
            while hasMore, !Task.isCancelled {
                let purged = try await store.purge(before: moment, limit: Self.purgeBatch)
                for session in purged.sessions { auditPurge(of: session.id, owner: session.owner) }
                hasMore = purged.hasMore
            }
        } catch {
            logger.error("Old records could not be deleted", metadata: ["error": "\(error)"])
        }
    }
}
