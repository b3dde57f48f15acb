// SPDX-License-Identifier: Apache-2.0

import AgentProtocol

/// Sends one call's rich results to the host within the stream's credit.
///
/// Holds what exceeds the credit. ``Interpreter`` reads no further message while something waits here, so the queue never holds
/// more than one message.
package final class ResultQueue {
    private let stream: HostStream
    private var bytes: [UInt8] = []
    private var sent = 0
    private var drained: (() -> Void)?
    /// Called when the last waiting byte was given to the port.
    private let onEmpty: () -> Void

    package init(stream: HostStream, onEmpty: @escaping () -> Void) {
        self.stream = stream
        self.onEmpty = onEmpty
    }

    package var isEmpty: Bool { bytes.isEmpty }

    /// Takes a result's JSON text. The part within the credit leaves with the stream's next flush.
    package func add(_ text: [UInt8]) {
        withUnsafeBytes(of: UInt32(text.count).littleEndian) { bytes.append(contentsOf: $0) }
        bytes += text
        queue()
    }

    /// Must be called when credit came, or room in the port's queue.
    package func resume() {
        guard !isEmpty else { return }
        queue()
        let isDone = isEmpty
        // Sending may make room, which ends the execution and with it this queue.
        stream.flush()
        guard isDone else { return }
        onEmpty()
        finish()
    }

    /// Calls back when everything was given to the port.
    package func drain(_ done: @escaping () -> Void) {
        drained = done
        finish()
    }

    private func finish() {
        guard isEmpty, let drained else { return }
        self.drained = nil
        drained()
    }

    private func queue() {
        while sent < bytes.count, stream.canSend {
            let count = stream.take(upTo: min(bytes.count - sent, ProtocolLimits.maximumPayload - 1))
            bytes.withUnsafeBytes {
                stream.queue(UnsafeRawBufferPointer(rebasing: $0[sent..<(sent + count)]), channel: .results)
            }
            sent += count
        }
        guard sent == bytes.count else { return }
        bytes = []
        sent = 0
    }
}
