// SPDX-License-Identifier: Apache-2.0

package import Foundation
import NIOCore
import NIOPosix
import Synchronization

/// Calls back at a moment that may move away meanwhile: when it is due it asks again.
package final class LifetimeTimer: Sendable {
    private enum State {
        case waiting(Scheduled<Void>?)
        /// It is due, or was called off. Terminal.
        case over
    }

    private let state = Mutex(State.waiting(nil))
    private let deadline: @Sendable () -> Date
    private let onDue: @Sendable () -> Void

    /// - Parameters:
    ///   - deadline: when it is due, asked at the beginning and at each moment that it has named.
    ///   - onDue: called once, unless it is called off before.
    package init(deadline: @escaping @Sendable () -> Date, onDue: @escaping @Sendable () -> Void) {
        self.deadline = deadline
        self.onDue = onDue
        wait()
    }

    /// Calls it off.
    package func cancel() {
        let scheduled: Scheduled<Void>? = state.withLock { state in
            defer { state = .over }
            if case .waiting(let scheduled) = state { return scheduled }
            return nil
        }
        scheduled?.cancel()
    }

    private func wait() {
        let left = TimeAmount.nanoseconds(Int64(max(0, deadline().timeIntervalSinceNow) * 1e9))
        state.withLock { state in
            guard case .waiting = state else { return }
            state = .waiting(MultiThreadedEventLoopGroup.singleton.next().scheduleTask(in: left) { self.check() })
        }
    }

    private func check() {
        guard deadline().timeIntervalSinceNow <= 0 else { return wait() }
        let isDue = state.withLock { state in
            guard case .waiting = state else { return false }
            state = .over
            return true
        }
        if isDue { onDue() }
    }
}
