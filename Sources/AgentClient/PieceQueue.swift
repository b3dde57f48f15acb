// SPDX-License-Identifier: Apache-2.0

import AgentProtocol

/// Bytes of a stream on their way to its reader: a few pieces that it has before it, and what came behind them, joined.
///
/// Credit bounds the bytes of a stream and not the frames that they come in: a guest that sends them one by one must not cost the
/// host an event each.
struct PieceQueue {
    struct Piece {
        let channel: AgentProtocol.Channel
        var bytes: [UInt8]
    }

    /// Pieces that the reader may have before it.
    private static let readerLimit = 32
    /// Pieces that wait and keep the order of their channels among each other; later ones join the last of their own.
    private static let orderedLimit = 32

    private var waiting: [Piece] = []
    /// Sizes of the pieces that the reader has, and how much it has used up of the first.
    private var given: [Int] = []
    private var used = 0

    /// Takes bytes that came.
    mutating func append(_ bytes: ArraySlice<UInt8>, channel: AgentProtocol.Channel) {
        let isOrdered = waiting.count < Self.orderedLimit
        let last = isOrdered ? waiting.indices.last : waiting.lastIndex { $0.channel == channel }
        if let last, waiting[last].channel == channel,
            waiting[last].bytes.count + bytes.count <= ProtocolLimits.maximumPayload
        {
            waiting[last].bytes += bytes
        } else {
            waiting.append(Piece(channel: channel, bytes: Array(bytes)))
        }
    }

    /// The pieces that the reader is to have now.
    mutating func next() -> [Piece] {
        let pieces = Array(waiting.prefix(Self.readerLimit - given.count))
        waiting.removeFirst(pieces.count)
        given += pieces.map(\.bytes.count)
        return pieces
    }

    /// All that waits, at a stream's end.
    mutating func all() -> [Piece] {
        defer { waiting = [] }
        return waiting
    }

    /// The reader has used up bytes.
    mutating func consume(_ bytes: Int) {
        used += bytes
        while let first = given.first, used >= first {
            used -= first
            given.removeFirst()
        }
    }
}
