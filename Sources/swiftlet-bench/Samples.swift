// SPDX-License-Identifier: Apache-2.0

/// Measured values of one kind.
package struct Samples: Encodable, Equatable, Sendable {
    package let name: String
    /// `ms`, `MiB`, `MB/s` or `%`.
    package let unit: String
    package let values: [Double]
    package let budget: Budget?

    package init(_ name: String, unit: String = "ms", _ values: [Double], budget: Budget? = nil) {
        self.name = name
        self.unit = unit
        self.values = values
        self.budget = budget
    }

    /// The smallest value that at least this share of the samples does not exceed (nearest rank); NaN without samples.
    ///
    /// - Parameter share: above 0, at most 1.
    package func percentile(_ share: Double) -> Double {
        guard !values.isEmpty else { return .nan }
        let rank = Int((share * Double(values.count)).rounded(.up))
        return values.sorted()[max(0, min(rank, values.count) - 1)]
    }

    package var median: Double { percentile(0.5) }
}

/// What the median of a kind of samples may be.
package enum Budget: Encodable, Equatable, Sendable, CustomStringConvertible {
    /// At most so many times the median of `python3 -c pass` on the host in the same run.
    case pythons(Double)
    /// At most so many times the median of other samples in the same run.
    case times(Double, of: String)
    /// At most a value in the samples' own unit.
    case atMost(Double)
    /// At least a value in the samples' own unit.
    case atLeast(Double)

    package var description: String {
        switch self {
        case .pythons(let factor): "\(factor.short) py"
        case .times(let factor, let name): "\(factor.short) x \(name)"
        case .atMost(let value): "<= \(value.short)"
        case .atLeast(let value): ">= \(value.short)"
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

extension Double {
    /// Without a fraction that is zero.
    fileprivate var short: String { self == rounded() && abs(self) < 1e9 ? "\(Int(self))" : "\(self)" }
}
