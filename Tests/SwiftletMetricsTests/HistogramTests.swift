// SPDX-License-Identifier: Apache-2.0

import SwiftletMetrics
import Testing

@Suite struct HistogramTests {
    private func value(_ family: MetricFamily, _ suffix: String, _ labels: [String: String]) -> Double? {
        family.samples.first { $0.suffix == suffix && $0.labels == labels }?.value
    }

    @Test func eachBucketCountsAllThatIsUpToItsBound() {
        let histogram = Histogram("h", "")
        for seconds in [0.001, 0.002, 0.3, 1_000] { histogram.observe(seconds, ["a": "b"]) }
        let family = histogram.family
        #expect(family.kind == .histogram)
        #expect(value(family, "_bucket", ["a": "b", "le": "0.0005"]) == 0)
        #expect(value(family, "_bucket", ["a": "b", "le": "0.001"]) == 1)
        #expect(value(family, "_bucket", ["a": "b", "le": "0.0025"]) == 2)
        #expect(value(family, "_bucket", ["a": "b", "le": "0.25"]) == 2)
        #expect(value(family, "_bucket", ["a": "b", "le": "0.5"]) == 3)
        #expect(value(family, "_bucket", ["a": "b", "le": "600"]) == 3)
        #expect(value(family, "_bucket", ["a": "b", "le": "+Inf"]) == 4)
        #expect(value(family, "_count", ["a": "b"]) == 4)
        #expect(value(family, "_sum", ["a": "b"]) == 1_000.303)
    }

    @Test func eachSetOfLabelsIsCountedApart() {
        let counter = Counter("c", "")
        counter.add(["a": "1"])
        counter.add(["a": "2"])
        counter.add(["a": "2"])
        #expect(counter.family.samples == [.init(["a": "1"], 1), .init(["a": "2"], 2)])
    }
}
