// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletSessions
import Synchronization
import Testing

@Suite struct LifetimeTimerTests {
    @Test(.timeLimit(.minutes(1))) func itIsDueAtItsMoment() async {
        let due = Date().addingTimeInterval(0.05)
        await withCheckedContinuation { continuation in
            _ = LifetimeTimer(deadline: { due }, onDue: { continuation.resume() })
        }
        #expect(Date() >= due)
    }

    @Test(.timeLimit(.minutes(1))) func aMomentThatHasMovedAwayIsWaitedFor() async {
        let due = Mutex(Date().addingTimeInterval(0.05))
        let asked = Mutex(0)
        let last = Date().addingTimeInterval(0.2)
        await withCheckedContinuation { continuation in
            _ = LifetimeTimer {
                asked.withLock { $0 += 1 }
                return due.withLock { due in
                    defer { due = last }
                    return due
                }
            } onDue: {
                continuation.resume()
            }
        }
        #expect(Date() >= last)
        #expect(asked.withLock { $0 } >= 2)
    }

    @Test(.timeLimit(.minutes(1))) func whatWasCalledOffDoesNotHappen() async {
        let called = Mutex(false)
        let due = Date().addingTimeInterval(0.05)
        let timer = LifetimeTimer(deadline: { due }, onDue: { called.withLock { $0 = true } })
        timer.cancel()
        // Another one, due later, tells that its time has passed.
        await withCheckedContinuation { continuation in
            _ = LifetimeTimer(deadline: { due.addingTimeInterval(0.05) }, onDue: { continuation.resume() })
        }
        #expect(!called.withLock { $0 })
    }
}
