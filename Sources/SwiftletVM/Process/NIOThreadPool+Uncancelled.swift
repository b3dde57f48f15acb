// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix

extension NIOThreadPool {
    /// Runs a blocking body to its end, also in a task that was cancelled: what must be reaped or removed must be.
    func runUncancelled<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await runIfActive(eventLoop: MultiThreadedEventLoopGroup.singleton.next(), body).get()
    }
}
