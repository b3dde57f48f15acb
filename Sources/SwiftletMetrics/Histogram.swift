// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Counts durations by how long they were, apart for each set of labels.
package final class Histogram: Sendable {
    /// Upper bounds in seconds: from a tenth of a warm call to the longest timeout.
    package static let bounds = [
        0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600,
    ]

    private struct Series {
        /// How many were up to each bound and above the one before.
        var counts = [Double](repeating: 0, count: Histogram.bounds.count)
        var count = 0.0
        var sum = 0.0
    }

    private let name: String
    private let help: String
    private let series = Mutex<[[String: String]: Series]>([:])

    package init(_ name: String, _ help: String) {
        self.name = name
        self.help = help
    }

    /// Counts a duration in seconds. The values of labels must come from a small set, never from a caller.
    package func observe(_ seconds: Double, _ labels: [String: String] = [:]) {
        series.withLock { series in
            var one = series[labels] ?? Series()
            if let index = Self.bounds.firstIndex(where: { seconds <= $0 }) { one.counts[index] += 1 }
            one.count += 1
            one.sum += seconds
            series[labels] = one
        }
    }

    package var family: MetricFamily {
        let series = series.withLock { $0 }
        let parts = series.map { labels, one in (MetricFamily.Sample(labels, one.sum).order, labels, one) }
        let samples = parts.sorted { $0.0 < $1.0 }.flatMap { Self.samples($0.1, $0.2) }
        return MetricFamily(name, .histogram, help, samples)
    }

    private static func samples(_ labels: [String: String], _ series: Series) -> [MetricFamily.Sample] {
        var total = 0.0
        var samples = zip(bounds, series.counts).map { bound, count in
            total += count
            return bucket(labels, bound == bound.rounded() ? "\(Int(bound))" : "\(bound)", total)
        }
        samples.append(bucket(labels, "+Inf", series.count))
        samples.append(.init(labels, series.sum, suffix: "_sum"))
        samples.append(.init(labels, series.count, suffix: "_count"))
        return samples
    }

    private static func bucket(_ labels: [String: String], _ bound: String, _ value: Double) -> MetricFamily.Sample {
        .init(labels.merging(["le": bound]) { $1 }, value, suffix: "_bucket")
    }
}
