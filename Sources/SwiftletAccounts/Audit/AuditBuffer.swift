// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import Logging
package import SwiftletCore
package import SwiftletStore
import Synchronization

/// Takes audit events in without making anybody wait, and writes them down together a moment later.
///
/// A flood of refusals does not fill the disk: of those that are alike the first is written, and the rest of a minute is counted.
package final class AuditBuffer: Sendable {
    /// What refusals must have in common to be counted as one.
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

    private static let maximumWaiting = 20_000
    private static let maximumRepetitions = 2_000
    private static let batch = 500
    /// Seconds for which events that are alike are counted.
    private static let window = 60.0

    /// Where the events are that are written down.
    package let store: AuditStore
    private let write: @Sendable ([AuditEvent]) async throws -> Void
    private let logger: Logger
    private let state = Mutex(State())

    /// - Parameter append: how events are written down, if not into the store.
    package init(
        _ store: AuditStore,
        logger: Logger,
        append: (@Sendable ([AuditEvent]) async throws -> Void)? = nil
    ) {
        self.store = store
        self.logger = logger
        write = append ?? { try await store.append($0) }
    }

    /// Events that were lost because the database could not be written for long.
    package var droppedCount: Int { state.withLock { $0.dropped } }

    /// Takes an event in; touches no database.
    package func append(_ event: AuditEvent) {
        state.withLock { Self.add(event, to: &$0) }
    }

    /// Takes an event in, and returns when it is written down with all that came before it.
    ///
    /// Where the database cannot be written now, it waits, as all others do.
    package func record(_ event: AuditEvent) async {
        append(event)
        await flush(at: event.createdAt)
    }

    /// Takes a refusal in; what is like one of the last minute is only counted.
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
                // Too many kinds: what is told of them is their type alone.
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
            Self.add(event, to: &state)
            return true
        }
    }

    /// Writes down what waits.
    ///
    /// - Parameter isLast: ends all counting, for a server that stops.
    package func flush(at moment: Date = Date(), isLast: Bool = false) async {
        let (events, unreported) = state.withLock { state in
            Self.endRepetitions(&state, at: moment, all: isLast)
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
            for event in events + newer { Self.add(event, to: &state) }
        }
    }

    private static func add(_ event: AuditEvent, to state: inout State) {
        guard state.waiting.count < maximumWaiting else {
            state.dropped += 1
            state.unreported += 1
            return
        }
        state.waiting.append(event)
    }

    private static func endRepetitions(_ state: inout State, at moment: Date, all: Bool) {
        let over = state.repetitions.filter { _, repetition in
            // One of the future was begun before the clock was set back.
            all || !(0..<window).contains(moment.timeIntervalSince(repetition.since))
        }
        for (likeness, repetition) in over {
            state.repetitions[likeness] = nil
            if repetition.count > 0 { add(repetition.event.repeated(repetition.count, at: moment), to: &state) }
        }
    }
}
