// SPDX-License-Identifier: Apache-2.0

import AgentProtocol

/// One call's rich results on their way to the host, as far as its credit reaches.
///
/// Holds what is more than that; whoever fills it stops to read as long as something waits, so it stays as small as one message.
final class ResultQueue {
    private let stream: HostStream
    private var bytes: [UInt8] = []
    private var sent = 0
    private var drained: (() -> Void)?
    /// Called when nothing waits any more, and something did.
    private let onEmpty: () -> Void

    init(stream: HostStream, onEmpty: @escaping () -> Void) {
        self.stream = stream
        self.onEmpty = onEmpty
    }

    var isEmpty: Bool { bytes.isEmpty }

    /// Takes a result's JSON text. What credit allows leaves with the stream's next flush.
    func add(_ text: [UInt8]) {
        withUnsafeBytes(of: UInt32(text.count).littleEndian) { bytes.append(contentsOf: $0) }
        bytes += text
        queue()
    }

    /// Credit came, or room in the port's queue.
    func resume() {
        guard !isEmpty else { return }
        queue()
        let isDone = isEmpty
        // What was begun before may end in here, and this queue with it.
        stream.flush()
        guard isDone else { return }
        onEmpty()
        finish()
    }

    /// Calls back when everything was given to the port.
    func drain(_ done: @escaping () -> Void) {
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
