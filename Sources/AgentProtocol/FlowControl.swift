// SPDX-License-Identifier: Apache-2.0

/// The sender's side of a stream's credit: how many bytes it may still send.
package struct SendWindow: Equatable, Sendable {
    /// Bytes that may be sent now.
    package private(set) var available: Int

    package init(initial: Int = ProtocolLimits.initialCredit) {
        available = initial
    }

    /// Takes up to `wanted` bytes; returns how many may be sent.
    package mutating func take(upTo wanted: Int) -> Int {
        let granted = min(wanted, available)
        available -= granted
        return granted
    }

    /// The receiver made room. Saturates, so that a lying peer cannot make it overflow.
    package mutating func grant(_ bytes: UInt32) {
        available = min(available + Int(bytes), Int(UInt32.max))
    }
}

/// The receiver's side of a stream's credit: refuses what was not granted, and grants again in few, large steps.
package struct ReceiveWindow: Equatable, Sendable {
    private var outstanding: Int
    private var consumed = 0
    private let step: Int

    package init(initial: Int = ProtocolLimits.initialCredit) {
        outstanding = initial
        step = initial / 4
    }

    /// Whether the sender may send.
    package var isOpen: Bool { outstanding > 0 }

    /// Bytes arrived; throws when the sender had no credit for them.
    package mutating func receive(_ bytes: Int, stream: UInt32) throws(ProtocolError) {
        guard bytes <= outstanding else { throw .creditExceeded(stream: stream) }
        outstanding -= bytes
    }

    /// Bytes were used up; returns the credit to send now, if it is time for one.
    package mutating func consume(_ bytes: Int) -> UInt32? {
        consumed += bytes
        guard consumed >= step else { return nil }
        defer { consumed = 0 }
        outstanding += consumed
        return UInt32(consumed)
    }
}
