// SPDX-License-Identifier: Apache-2.0

import NIOPosix
import SwiftletCore

/// Verifies passwords on threads of its own, a few at a time: each check takes memory and time on purpose.
struct PasswordVerifier: Sendable {
    /// As many checks as may wait already.
    struct Busy: Error {}

    private static let maximumWaiting = 30
    private let threads: NIOThreadPool
    private let places: AsyncSemaphore
    /// What unknown users are checked against, so that they take as long as known ones.
    private let placeholder: PasswordHash

    /// - Parameter threads: the checks run on these and nothing else does: other work would wait long for one of them.
    init(cost: PasswordHash.Cost, threads: NIOThreadPool) {
        placeholder = PasswordHash(fittingNothingAt: cost)
        self.threads = threads
        places = AsyncSemaphore(permits: threads.numberOfThreads, maximumWaiters: Self.maximumWaiting)
    }

    /// Whether a password fits. Without a hash the check takes as long as with one, and the answer is no.
    ///
    /// - Throws: ``Busy`` when too many wait already; `CancellationError`.
    func verify(_ password: String, against hash: PasswordHash?) async throws -> Bool {
        switch await places.acquire() {
        case .acquired: break
        case .full: throw Busy()
        case .timedOut, .cancelled, .withdrawn: throw CancellationError()
        }
        defer { places.release() }
        let checked = hash ?? placeholder
        let fits = try await threads.runIfActive { try checked.matches(password) }
        return fits && hash != nil
    }
}
