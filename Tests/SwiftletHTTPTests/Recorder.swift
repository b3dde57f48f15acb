// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Keeps what a fake was asked.
final class Recorder<Value: Sendable>: Sendable {
    private let values = Mutex<[Value]>([])

    func record(_ value: Value) {
        values.withLock { $0.append(value) }
    }

    var last: Value? { values.withLock { $0.last } }
}
