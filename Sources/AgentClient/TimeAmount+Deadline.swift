// SPDX-License-Identifier: Apache-2.0

package import NIOCore

extension TimeAmount {
    /// The time that is left until an instant; zero when it has passed.
    package static func until(_ deadline: ContinuousClock.Instant) -> TimeAmount {
        TimeAmount(max(.zero, deadline - .now))
    }
}
