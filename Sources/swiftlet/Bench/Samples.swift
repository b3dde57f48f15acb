// SPDX-License-Identifier: Apache-2.0

/// Measured values of one kind.
struct Samples: Encodable, Sendable {
    let name: String
    /// `ms`, `MiB` or `MB/s`.
    let unit: String
    let values: [Double]

    /// The value that a share of the samples does not exceed (nearest rank).
    ///
    /// - Parameter share: above 0, at most 1.
    func percentile(_ share: Double) -> Double {
        guard !values.isEmpty else { return .nan }
        let rank = Int((share * Double(values.count)).rounded(.up))
        return values.sorted()[max(0, min(rank, values.count) - 1)]
    }
}
