// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// A moment as the database keeps it.
extension Date {
    /// Microseconds since 1970.
    package var microseconds: Int64 { Int64((timeIntervalSince1970 * 1e6).rounded()) }

    package init(microseconds: Int64) {
        self.init(timeIntervalSince1970: Double(microseconds) / 1e6)
    }
}
