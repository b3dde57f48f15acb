// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// What the outputs of all executions may take together, those that are still being written included.
package final class OutputBudget: Sendable {
    private let used = Mutex(0)
    /// Beyond it the oldest outputs are thrown away.
    package let limit: Int
    /// Beyond it nothing more is kept: who writes is faster than what is old can be thrown away.
    private let ceiling: Int

    package init(limit: Int) {
        self.limit = limit
        ceiling = limit + limit / 4
    }

    /// How many bytes are more than there should be; 0 when none are.
    package var excess: Int { used.withLock { max(0, $0 - limit) } }

    /// Takes up to so many bytes, and returns how many it got.
    func take(_ bytes: Int) -> Int {
        used.withLock { used in
            let taken = max(0, min(bytes, ceiling - used))
            used += taken
            return taken
        }
    }

    /// Bytes that are there already.
    func add(_ bytes: Int) {
        used.withLock { $0 += bytes }
    }

    /// Bytes are gone.
    func giveBack(_ bytes: Int) {
        used.withLock { $0 = max(0, $0 - bytes) }
    }
}
