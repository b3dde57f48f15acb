// SPDX-License-Identifier: Apache-2.0

import SwiftletCore
import SwiftletTestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct BackgroundTasksTests {
    @Test func runReturnsWhenAllThatWasSubmittedHasEnded() async {
        let tasks = BackgroundTasks()
        let ended = Locked(0)
        for _ in 0..<100 {
            tasks.submit {
                await Task.yield()
                ended.withLock { $0 += 1 }
            }
        }
        tasks.finish()
        await tasks.run()
        #expect(ended.value == 100)
    }

    @Test func afterTheFinishWorkIsRefusedAndDoesNotRun() async {
        let tasks = BackgroundTasks()
        tasks.finish()
        #expect(!tasks.submit { Issue.record("It ran") })
        await tasks.run()
    }

    @Test func cancellationReachesTheWorkAndEndsTheRun() async {
        let tasks = BackgroundTasks()
        let parent = Task { await tasks.run() }
        let (started, signal) = AsyncStream.makeStream(of: Void.self)
        let wasCancelled = Locked(false)
        tasks.submit {
            signal.yield()
            // Only cancellation ends it.
            try? await Task.sleep(for: .seconds(3_600))
            wasCancelled.withLock { $0 = Task.isCancelled }
        }
        for await _ in started { break }
        parent.cancel()
        await parent.value
        #expect(wasCancelled.value)
        #expect(!tasks.submit {})
    }
}
