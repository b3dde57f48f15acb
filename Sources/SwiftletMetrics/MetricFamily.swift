// SPDX-License-Identifier: Apache-2.0

/// Numbers of one name, for a monitoring system.
package struct MetricFamily: Equatable, Sendable {
    package enum Kind: String, Sendable {
        /// Only grows while the server runs.
        case counter
        /// A state at this moment.
        case gauge
        /// How many of the values seen so far were up to each of some bounds, and their sum.
        case histogram
    }

    package struct Sample: Equatable, Sendable {
        /// The suffix to the family's name: `_bucket`, `_sum` or `_count` of a histogram.
        package var suffix: String
        package var labels: [String: String]
        package var value: Double

        package init(_ labels: [String: String] = [:], _ value: Double, suffix: String = "") {
            self.suffix = suffix
            self.labels = labels
            self.value = value
        }
    }

    /// As Prometheus wants it: lower case, the unit last.
    package var name: String
    package var help: String
    package var kind: Kind
    package var samples: [Sample]

    package init(_ name: String, _ kind: Kind, _ help: String, _ samples: [Sample]) {
        self.name = name
        self.kind = kind
        self.help = help
        self.samples = samples
    }
}

extension MetricFamily.Sample {
    /// A number without labels.
    package init(_ value: Double) {
        self.init([:], value)
    }
}
