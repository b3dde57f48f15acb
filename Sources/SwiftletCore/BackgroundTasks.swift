// SPDX-License-Identifier: Apache-2.0

/// Owns the tasks that outlive the calls which began them.
///
/// ``run()`` is their parent: it returns when all of them have ended. Cancelling it cancels them.
package final class BackgroundTasks: Sendable {
    package typealias Work = @Sendable () async -> Void

    private let submissions: AsyncStream<Work>
    private let continuation: AsyncStream<Work>.Continuation

    package init() {
        // It holds a task only from its submission until the parent takes it up, which waits for no other task.
        (submissions, continuation) = AsyncStream.makeStream()
    }

    /// Hands work to the parent.
    ///
    /// - Returns: false when the parent takes no more; the work does not run then.
    @discardableResult
    package func submit(_ work: @escaping Work) -> Bool {
        if case .enqueued = continuation.yield(work) { true } else { false }
    }

    /// Takes no more work; ``run()`` returns when what was taken has ended.
    package func finish() {
        continuation.finish()
    }

    /// Runs what is submitted, until ``finish()`` or cancellation; then waits for the ends of all.
    package func run() async {
        await withDiscardingTaskGroup { group in
            for await work in submissions { group.addTask { await work() } }
            // Cancelled, nobody iterates any more: what comes later is refused and not lost in the stream.
            continuation.finish()
        }
    }
}
