// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// The rich results of one execution. Written by one task and read afterwards.
package final class ResultSpool: Sendable {
    private struct State {
        var decoder = ResultDecoder()
        var bundles: [String] = []
    }

    private let state = Mutex(State())

    package init() {}

    /// The bundles' JSON texts, in order.
    package var bundles: [String] { state.withLock { $0.bundles } }

    /// Results that were left out.
    package var dropped: Int { state.withLock { $0.decoder.dropped } }

    /// Takes bytes of `Channel.results`.
    package func append(_ bytes: [UInt8]) {
        state.withLock { $0.bundles += $0.decoder.append(bytes) }
    }

    /// No more bytes come.
    package func finish() {
        state.withLock { $0.decoder.finish() }
    }
}
