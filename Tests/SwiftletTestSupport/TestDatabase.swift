// SPDX-License-Identifier: Apache-2.0

package import Foundation
import Synchronization

/// A path for a database, in a directory that goes with the test.
package func withDatabaseFile(_ body: (String) async throws -> Void) async throws {
    let directory = NSTemporaryDirectory() + "swiftlet-store-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try await body("\(directory)/data/swiftlet.sqlite")
}

/// A clock that a test moves, in any direction.
package final class TestClock: Sendable {
    private let moment = Mutex(Date(timeIntervalSince1970: 1_700_000_000))

    package init() {}

    package var now: Date { moment.withLock { $0 } }

    package func move(_ seconds: Double) {
        moment.withLock { $0 = $0.addingTimeInterval(seconds) }
    }

    package var read: @Sendable () -> Date {
        { [self] in now }
    }
}
