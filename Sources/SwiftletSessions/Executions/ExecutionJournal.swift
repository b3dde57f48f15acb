// SPDX-License-Identifier: Apache-2.0

import Foundation
package import NIOCore
import NIOPosix
package import SwiftletStore
import Synchronization

/// What an execution has become and said so far, to be read while it goes on and afterwards.
///
/// Who follows it sees every byte once: read the ``version``, then the streams, then wait for a change after that version.
package final class ExecutionJournal: Sendable {
    /// Bytes that a follower may be behind before the guest has to wait for it.
    private static let lead = 1 << 20
    private struct Follower {
        /// Bytes that it has got.
        var bytes: Int
        var tookAt = ContinuousClock.now
    }

    private struct State {
        var record: ExecutionRecord
        var version: UInt64 = 0
        var lastNumber: UInt64 = 0
        var waiters: [UInt64: EventLoopPromise<Void>] = [:]
        var followers: [UInt64: Follower] = [:]
        var isUnpaced = false
    }

    private let state: Mutex<State>
    private let logs: [ExecutionStream: OutputLog]
    private let patience: Duration

    /// - Parameter patience: nobody waits for a follower that has taken nothing for so long: its connection may be dead. It can
    ///   still catch up.
    package init(
        _ record: ExecutionRecord,
        logs: [ExecutionStream: OutputLog],
        patience: Duration = .seconds(30)
    ) {
        state = Mutex(State(record: record))
        self.logs = logs
        self.patience = patience
    }

    /// The record as it is now, with the sizes that its streams have.
    package var record: ExecutionRecord {
        var record = state.withLock { $0.record }
        for (stream, log) in logs {
            var size = record.size(of: stream)
            size.bytes = log.count
            size.dropped = max(size.dropped, log.droppedBytes)
            record.sizes[stream] = size
        }
        return record
    }

    /// Raised by every change.
    package var version: UInt64 { state.withLock { $0.version } }

    package var isFinal: Bool { state.withLock { $0.record.state.isFinal } }

    /// The bytes of a stream; an empty log when nothing of it was kept.
    package func log(of stream: ExecutionStream) -> OutputLog { logs[stream] ?? OutputLog([]) }

    // MARK: Writing

    /// Changes the record.
    package func update(_ change: (inout ExecutionRecord) -> Void) {
        signal { change(&$0.record) }
    }

    /// Bytes were added to a log.
    package func advanced() {
        signal { _ in }
    }

    private func signal(_ change: (inout State) -> Void) {
        let waiters = state.withLock { state in
            change(&state)
            state.version += 1
            defer { state.waiters = [:] }
            return state.waiters
        }
        for waiter in waiters.values { waiter.succeed() }
    }

    // MARK: Waiting

    /// Waits until the version is another than this one, but no longer than a time. Returns at once when cancelled.
    package func change(after version: UInt64, within limit: TimeAmount) async {
        await wait(limit) { $0.version == version }
    }

    private func wait(_ limit: TimeAmount, while condition: (State) -> Bool) async {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: Void.self)
        let number: UInt64? = state.withLock { state in
            guard condition(state) else { return nil }
            state.lastNumber += 1
            state.waiters[state.lastNumber] = promise
            return state.lastNumber
        }
        guard let number else { return promise.succeed() }
        let timer = loop.scheduleTask(in: limit) { self.wake(number) }
        await withTaskCancellationHandler {
            // A promise of this kind never fails.
            try? await promise.futureResult.get()
        } onCancel: {
            wake(number)
        }
        timer.cancel()
    }

    private func wake(_ number: UInt64) {
        state.withLock { $0.waiters.removeValue(forKey: number) }?.succeed()
    }

    // MARK: Backpressure

    /// Takes part as one for whom the guest waits.
    ///
    /// - Parameter delivered: bytes of all streams that it has got already.
    /// - Returns: its number, for ``delivered(_:to:)`` and ``unfollow(_:)``.
    package func follow(from delivered: Int) -> UInt64 {
        state.withLock { state in
            state.lastNumber += 1
            state.followers[state.lastNumber] = Follower(bytes: delivered)
            return state.lastNumber
        }
    }

    /// A follower has got so many bytes in all.
    package func delivered(_ bytes: Int, to follower: UInt64) {
        signal { $0.followers[follower] = Follower(bytes: bytes) }
    }

    package func unfollow(_ follower: UInt64) {
        signal { $0.followers[follower] = nil }
    }

    /// Lets the guest run ahead of everybody from now on.
    package func unpace() {
        signal { $0.isUnpaced = true }
    }

    /// Waits while a follower is far behind, but not beyond a deadline, nor when what it waits for is over.
    package func waitForFollowers(until deadline: ContinuousClock.Instant, unless isOver: () -> Bool) async {
        while true {
            let written = logs.values.reduce(0) { $0 + $1.count }
            let now = ContinuousClock.now
            func isFarAhead(_ state: State) -> Bool {
                !state.isUnpaced
                    && state.followers.values.contains {
                        written - $0.bytes > Self.lead && now - $0.tookAt < patience
                    }
            }
            guard now < deadline, !Task.isCancelled, state.withLock({ isFarAhead($0) }), !isOver() else { return }
            // Not for long: neither the end of a VM nor a follower's silence makes a change.
            await wait(min(.until(deadline), .seconds(1)), while: isFarAhead)
        }
    }
}

extension TimeAmount {
    /// The time that is left until an instant; zero when it has passed.
    static func until(_ deadline: ContinuousClock.Instant) -> TimeAmount {
        let left = max(.zero, deadline - .now)
        return .nanoseconds(left.components.seconds * 1_000_000_000 + left.components.attoseconds / 1_000_000_000)
    }
}
