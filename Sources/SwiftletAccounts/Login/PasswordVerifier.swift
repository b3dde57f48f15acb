// SPDX-License-Identifier: Apache-2.0

import NIOPosix
import SwiftletCore

/// Verifies passwords on threads of its own, a few at a time: each check takes memory and time on purpose.
struct PasswordVerifier: Sendable {
    /// Too many checks are waiting.
    struct Busy: Error {}

    private static let maximumWaiting = 30
    private let threads: NIOThreadPool
    private let permits: AsyncSemaphore
    /// The hash that passwords of unknown users are checked against, so that the check takes as long as for known ones.
    private let placeholder: PasswordHash

    /// - Parameter threads: run the checks and nothing else, since other work would wait long for a thread.
    init(cost: PasswordHash.Cost, threads: NIOThreadPool) {
        placeholder = PasswordHash(fittingNothingAt: cost)
        self.threads = threads
        permits = AsyncSemaphore(permits: threads.numberOfThreads, maximumWaiters: Self.maximumWaiting)
    }

    /// Whether a password fits. Without a hash the check takes as long as with one, and the answer is no.
    ///
    /// - Throws: ``Busy`` when too many checks are waiting; `CancellationError`.
    func verify(_ password: String, against hash: PasswordHash?) async throws -> Bool {
        switch await permits.acquire() {
        case .acquired: break
        case .full: throw Busy()
        case .timedOut, .cancelled, .withdrawn: throw CancellationError()
        }
        defer { permits.release() }
        let checked = hash ?? placeholder
        let fits = try await threads.runIfActive { try checked.matches(password) }
        return fits && hash != nil
    }
}
