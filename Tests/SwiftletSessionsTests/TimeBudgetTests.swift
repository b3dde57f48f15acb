// SPDX-License-Identifier: Apache-2.0

import SwiftletSessions
import Testing

@Suite struct TimeBudgetTests {
    @Test(arguments: [1, 2, 5, 10, 60, 600])
    func theGuestEndsFirstThenTheHostThenTheClient(seconds: Int) {
        let start = ContinuousClock.now
        let budget = TimeBudget(receivedAt: start, timeout: .seconds(seconds))
        #expect(budget.guestDeadline > start)
        #expect(budget.hostDeadline - budget.guestDeadline >= .milliseconds(400))
        #expect(start + .seconds(seconds) - budget.hostDeadline >= .milliseconds(100))
    }
}
