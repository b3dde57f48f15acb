// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import SwiftletStore
import Synchronization

/// Collects which keys were used, and stores it in batches: at most once a minute for each key.
package final class APIKeyUsageRecorder: Sendable {
    private struct State {
        /// Last uses that are not stored yet.
        var pending: [Int64: Date] = [:]
        /// When a use was last stored.
        var written: [Int64: Date] = [:]
    }

    private static let interval = 60.0
    private let store: @Sendable ([Int64: Date]) async throws -> Void
    private let state = Mutex(State())

    /// - Parameter store: stores the last uses of keys.
    package init(store: @escaping @Sendable ([Int64: Date]) async throws -> Void) {
        self.store = store
    }

    package convenience init(_ store: APIKeyStore) {
        self.init { try await store.recordUse($0) }
    }

    /// Records a use in memory.
    package func record(_ key: Int64, at moment: Date = Date()) {
        state.withLock { $0.pending[key] = moment }
    }

    /// Stores the uses of the keys that had none stored within the last minute. Uses that could not be stored stay pending.
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
            try await store(due)
        } catch {
            putBack(due)
            throw error
        }
    }

    private func putBack(_ uses: [Int64: Date]) {
        state.withLock { state in
            for (key, moment) in uses {
                // A later use may have been recorded meanwhile.
                state.pending[key] = max(moment, state.pending[key] ?? moment)
                state.written[key] = nil
            }
        }
    }
}
