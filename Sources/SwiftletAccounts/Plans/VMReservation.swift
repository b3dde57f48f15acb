// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore
import Synchronization

/// One of the concurrent VMs that a user's plan allows. It is released once; later calls of `release` do nothing.
package final class VMReservation: Sendable {
    /// The plan under which the VM was admitted.
    package let plan: Plan
    private let giveBack: @Sendable () -> Void
    private let isHeld = Mutex(true)

    init(plan: Plan, giveBack: @escaping @Sendable () -> Void) {
        self.plan = plan
        self.giveBack = giveBack
    }

    /// Whether the VM has ended and its resources are freed.
    package var isReleased: Bool { isHeld.withLock { !$0 } }

    package func release() {
        let wasHeld = isHeld.withLock { held in
            defer { held = false }
            return held
        }
        if wasHeld { giveBack() }
    }
}
