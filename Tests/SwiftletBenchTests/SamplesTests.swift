// SPDX-License-Identifier: Apache-2.0

import Testing
import swiftlet_bench

@Suite struct SamplesTests {
    @Test func `a percentile is the nearest rank, whatever the order of the samples`() {
        let samples = Samples("x", [5, 1, 4, 2, 3])
        #expect(samples.percentile(0.5) == 3)
        #expect(samples.percentile(0.2) == 1)
        #expect(samples.percentile(0.21) == 2)
        #expect(samples.percentile(0.99) == 5)
        #expect(samples.percentile(1) == 5)
    }

    @Test func `the median of an even number of samples is one that was measured`() {
        #expect(Samples("x", [1, 2, 3, 4]).median == 2)
    }

    @Test func `one sample is each of its percentiles`() {
        #expect([0.01, 0.5, 1].map { Samples("x", [7]).percentile($0) } == [7, 7, 7])
    }

    @Test func `no samples have no percentile`() {
        #expect(Samples("x", []).median.isNaN)
    }
}
