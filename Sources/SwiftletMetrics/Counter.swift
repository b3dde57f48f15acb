// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Counts events, separately for each set of labels.
package final class Counter: Sendable {
    private let name: String
    private let help: String
    private let counts = Mutex<[[String: String]: Double]>([:])

    package init(_ name: String, _ help: String) {
        self.name = name
        self.help = help
    }

    /// Counts one more. The values of labels must come from a small set, never from a caller.
    package func add(_ labels: [String: String] = [:]) {
        counts.withLock { $0[labels, default: 0] += 1 }
    }

    package var family: MetricFamily {
        let counts = counts.withLock { $0 }
        let samples = counts.map { MetricFamily.Sample($0.key, $0.value) }
        return MetricFamily(name, .counter, help, samples.sorted { $0.order < $1.order })
    }
}

extension MetricFamily.Sample {
    /// Something to sort by, so that two answers have the same order.
    var order: String { labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ",") }
}
