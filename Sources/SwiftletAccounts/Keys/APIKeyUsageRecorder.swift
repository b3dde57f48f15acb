// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import SwiftletStore
import Synchronization

/// Notes which keys were used, and writes it down later: at most once a minute for each.
package final class APIKeyUsageRecorder: Sendable {
    private struct State {
        /// Used, and not written down yet.
        var pending: [Int64: Date] = [:]
        /// When a use was last written down.
        var written: [Int64: Date] = [:]
    }

    private static let interval = 60.0
    private let record: @Sendable ([Int64: Date]) async throws -> Void
    private let state = Mutex(State())

    /// - Parameter record: writes uses down.
    package init(record: @escaping @Sendable ([Int64: Date]) async throws -> Void) {
        self.record = record
    }

    package convenience init(_ store: APIKeyStore) {
        self.init { try await store.recordUse($0) }
    }

    /// Notes a use; touches no database.
    package func note(_ key: Int64, at moment: Date = Date()) {
        state.withLock { $0.pending[key] = moment }
    }

    /// Writes down the uses of keys for which that was not done within the last minute. What could not be written is due again.
    package func flush(at moment: Date = Date()) async throws {
        let due = state.withLock { state in
            // A time in the future was written before the clock was set back.
            state.written = state.written.filter { (0..<Self.interval).contains(moment.timeIntervalSince($0.value)) }
            let due = state.pending.filter { state.written[$0.key] == nil }
            for key in due.keys {
                state.pending[key] = nil
                state.written[key] = moment
            }
            return due
        }
        guard !due.isEmpty else { return }
        do {
            try await record(due)
        } catch {
            putBack(due)
            throw error
        }
    }

    private func putBack(_ uses: [Int64: Date]) {
        state.withLock { state in
            for (key, moment) in uses {
                // A later use may have been noted meanwhile.
                state.pending[key] = max(moment, state.pending[key] ?? moment)
                state.written[key] = nil
            }
        }
    }
}
