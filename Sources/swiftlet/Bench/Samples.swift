// SPDX-License-Identifier: Apache-2.0

/// Times of one kind of call, in milliseconds.
struct Samples: Encodable, Sendable {
    let name: String
    let milliseconds: [Double]

    /// The value that a share of the samples does not exceed (nearest rank).
    ///
    /// - Parameter share: above 0, at most 1.
    func percentile(_ share: Double) -> Double {
        guard !milliseconds.isEmpty else { return .nan }
        let rank = Int((share * Double(milliseconds.count)).rounded(.up))
        return milliseconds.sorted()[max(0, min(rank, milliseconds.count) - 1)]
    }
}
