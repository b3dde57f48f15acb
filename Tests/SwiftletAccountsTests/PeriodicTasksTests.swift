// SPDX-License-Identifier: Apache-2.0

import Logging
import SwiftletAccounts
import Synchronization
import Testing

@Suite struct PeriodicTasksTests {
    private struct Failure: Error {}

    private var logger: Logger {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        return logger
    }

    @Test func oneFailureKeepsNothingElseFromBeingDone() async {
        let done = Mutex<[String]>([])
        let tasks = PeriodicTasks(
            [
                PeriodicTask("broken", interval: 1) { throw Failure() },
                PeriodicTask("often", interval: 1) { done.withLock { $0.append("often") } },
                PeriodicTask("seldom", interval: 60) { done.withLock { $0.append("seldom") } },
            ],
            logger: logger
        )
        for second in 59...61 { await tasks.perform(at: second) }
        #expect(done.withLock { $0 } == ["often", "often", "seldom", "often"])
    }
}
