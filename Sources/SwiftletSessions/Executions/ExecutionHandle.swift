// SPDX-License-Identifier: Apache-2.0

import AgentClient
import Foundation
package import NIOCore
import NIOPosix
package import SwiftletCore
import Synchronization

/// The state and the outputs of an execution, to be read while it runs and afterwards.
///
/// A reader sees every byte once when it reads the ``version``, then the streams, then waits for a change after that version.
package final class ExecutionHandle: Sendable {
    /// Bytes that a subscriber may be behind before the guest has to wait for it.
    private static let lead = 1 << 20
    private struct Subscriber {
        /// Bytes that it has got.
        var bytes: Int
        var tookAt = ContinuousClock.now
    }

    private struct State {
        var record: ExecutionRecord
        var version: UInt64 = 0
        var lastNumber: UInt64 = 0
        var waiters: [UInt64: EventLoopPromise<Void>] = [:]
        var subscribers: [UInt64: Subscriber] = [:]
        var isUnpaced = false
    }

    private let state: Mutex<State>
    private let logs: [ExecutionStream: OutputLog]
    private let patience: Duration

    /// - Parameter patience: nobody waits for a subscriber that has taken nothing for so long: its connection may be dead. It can
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

    package var id: ExecutionID { state.withLock { $0.record.id } }

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
    package func waitForChange(after version: UInt64, within limit: TimeAmount) async {
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
    /// - Returns: its number, for ``delivered(_:to:)`` and ``unsubscribe(_:)``.
    package func subscribe(from delivered: Int) -> UInt64 {
        state.withLock { state in
            state.lastNumber += 1
            state.subscribers[state.lastNumber] = Subscriber(bytes: delivered)
            return state.lastNumber
        }
    }

    /// A subscriber has got so many bytes in all.
    package func delivered(_ bytes: Int, to subscriber: UInt64) {
        signal { $0.subscribers[subscriber] = Subscriber(bytes: bytes) }
    }

    package func unsubscribe(_ subscriber: UInt64) {
        signal { $0.subscribers[subscriber] = nil }
    }

    /// Lets the guest run ahead of everybody from now on.
    package func unpace() {
        signal { $0.isUnpaced = true }
    }

    /// Waits while a subscriber is far behind, but not beyond a deadline, nor when what it waits for is over.
    package func waitForSubscribers(until deadline: ContinuousClock.Instant, unless isOver: () -> Bool) async {
        while true {
            let written = logs.values.reduce(0) { $0 + $1.count }
            let now = ContinuousClock.now
            func isFarAhead(_ state: State) -> Bool {
                !state.isUnpaced
                    && state.subscribers.values.contains {
                        written - $0.bytes > Self.lead && now - $0.tookAt < patience
                    }
            }
            guard now < deadline, !Task.isCancelled, state.withLock({ isFarAhead($0) }), !isOver() else { return }
            // Not for long: neither the end of a VM nor a subscriber's silence makes a change.
            await wait(min(.until(deadline), .seconds(1)), while: isFarAhead)
        }
    }
}
