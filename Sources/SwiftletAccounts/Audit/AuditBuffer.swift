// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import Logging
package import SwiftletCore
package import SwiftletStore
import Synchronization

/// Buffers audit events in memory, and stores them in batches.
///
/// A flood of refusals does not fill the disk: of those that are alike the first is written, and the rest of a minute is counted.
package final class AuditBuffer: Sendable {
    /// The properties that refusals must share to be counted as one.
    private struct Likeness: Hashable {
        var type: AuditEventType
        var status: AuditStatus
        var address: String?
        var owner: UserID?
        var session: SessionID?
        var resource: String?
    }

    private struct Repetition {
        var event: AuditEvent
        let since: Date
        var count = 0
    }

    private struct State {
        var waiting: [AuditEvent] = []
        var repetitions: [Likeness: Repetition] = [:]
        /// Events that found no room.
        var dropped = 0
        /// Of those, how many the log does not speak of yet.
        var unreported = 0
    }

    private static let maximumRepetitions = 2_000
    private static let batch = 500
    /// Seconds for which events that are alike are counted.
    private static let window = 60.0

    /// Where the events are that are written down.
    package let store: AuditStore
    private let write: @Sendable ([AuditEvent]) async throws -> Void
    private let logger: Logger
    private let maximumWaiting: Int
    private let state = Mutex(State())
    /// One flush at a time: a flush that finds nothing to write has waited for those that took the events before it.
    private let flushing = AsyncSemaphore()

    /// - Parameters:
    ///   - maximumWaiting: how many events may wait for the database; further ones are dropped and counted.
    ///   - append: writes events in place of the store.
    package init(
        _ store: AuditStore,
        logger: Logger,
        maximumWaiting: Int = 20_000,
        append: (@Sendable ([AuditEvent]) async throws -> Void)? = nil
    ) {
        self.store = store
        self.logger = logger
        self.maximumWaiting = maximumWaiting
        write = append ?? { try await store.append($0) }
    }

    /// Events that were lost because the database could not be written for long.
    package var droppedCount: Int { state.withLock { $0.dropped } }

    /// Takes an event in; touches no database.
    package func append(_ event: AuditEvent) {
        state.withLock { add(event, to: &$0) }
    }

    /// Adds an event, and returns when it and all events before it are durable.
    ///
    /// When the database cannot be written, it returns all the same, and the event waits with the others for the next flush.
    package func record(_ event: AuditEvent) async {
        append(event)
        await flush(at: event.createdAt)
    }

    /// Buffers a refusal; one that equals a refusal of the last minute is only counted.
    ///
    /// - Returns: whether it was the first of its kind.
    @discardableResult
    package func appendRefusal(_ event: AuditEvent) -> Bool {
        var likeness = Likeness(
            type: event.type,
            status: event.status,
            address: event.address,
            owner: event.owner,
            session: event.session,
            resource: event.resourceID
        )
        return state.withLock { state in
            var event = event
            if state.repetitions[likeness] == nil, state.repetitions.count >= Self.maximumRepetitions {
                // Too many kinds: only the type of further ones is stored.
                likeness = Likeness(type: event.type, status: event.status)
                event.address = nil
                event.owner = nil
                event.session = nil
                event.resourceID = nil
                event.actor = .anonymous
                event.credential = nil
            }
            if state.repetitions[likeness] != nil {
                state.repetitions[likeness]?.count += 1
                return false
            }
            state.repetitions[likeness] = Repetition(event: event, since: event.createdAt)
            add(event, to: &state)
            return true
        }
    }

    /// Writes all pending events, and returns when those that another flush has taken are durable too.
    ///
    /// - Parameter isLast: ends the counting of repetitions, for a server that stops.
    package func flush(at moment: Date = Date(), isLast: Bool = false) async {
        let hasTurn = await flushing.acquire() == .acquired
        // A cancelled task need not wait until another flush has written. The last flush must write.
        guard hasTurn || isLast else { return }
        defer { if hasTurn { flushing.release() } }
        await writePending(at: moment, isLast: isLast)
    }

    private func writePending(at moment: Date, isLast: Bool) async {
        let (events, unreported) = state.withLock { state in
            endRepetitions(&state, at: moment, all: isLast)
            defer {
                state.waiting = []
                state.unreported = 0
            }
            return (state.waiting, state.unreported)
        }
        if unreported > 0 {
            logger.error("Audit events were lost: too many wait for the database", metadata: ["count": "\(unreported)"])
        }
        var written = 0
        do {
            while written < events.count {
                let end = min(written + Self.batch, events.count)
                try await write(Array(events[written..<end]))
                written = end
            }
        } catch {
            putBack(events[written...])
            guard !(error is CancellationError) else { return }
            logger.error(
                "Audit events could not be written down; they wait",
                metadata: ["count": "\(events.count - written)", "error": "\(error)"]
            )
        }
    }

    private func putBack(_ events: ArraySlice<AuditEvent>) {
        state.withLock { state in
            let newer = state.waiting
            state.waiting = []
            for event in events + newer { add(event, to: &state) }
        }
    }

    private func add(_ event: AuditEvent, to state: inout State) {
        guard state.waiting.count < maximumWaiting else {
            state.dropped += 1
            state.unreported += 1
            return
        }
        state.waiting.append(event)
    }

    private func endRepetitions(_ state: inout State, at moment: Date, all: Bool) {
        let over = state.repetitions.filter { _, repetition in
            // One of the future was begun before the clock was set back.
            all || !(0..<Self.window).contains(moment.timeIntervalSince(repetition.since))
        }
        for (likeness, repetition) in over {
            state.repetitions[likeness] = nil
            if repetition.count > 0 { add(repetition.event.repeated(repetition.count, at: moment), to: &state) }
        }
    }
}
