// SPDX-License-Identifier: Apache-2.0

import SwiftletCore
import Synchronization

/// Counts how many of something each user has at once, and holds users to a limit.
final class ConcurrencyLimiter: Sendable {
    private let counts = Mutex<[UserID: Int]>([:])

    func count(of user: UserID) -> Int {
        counts.withLock { $0[user] ?? 0 }
    }

    /// Acquires a slot, until it is released.
    ///
    /// - Parameter limit: nil for as many as are wanted.
    /// - Returns: the limit, when it is reached and no slot was acquired; else nil.
    func acquire(for user: UserID, upTo limit: Int?) -> Int? {
        counts.withLock { counts in
            let count = counts[user] ?? 0
            if let limit, count >= limit { return limit }
            counts[user] = count + 1
            return nil
        }
    }

    func release(_ user: UserID) {
        counts.withLock { counts in
            let count = (counts[user] ?? 0) - 1
            counts[user] = count > 0 ? count : nil
        }
    }
}
