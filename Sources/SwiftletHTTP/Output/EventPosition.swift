// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
package import SwiftletCore

/// How far a client has followed an execution: the `id` of an event, `exec-...:<stdout>.<stderr>.<results>` in bytes.
package struct EventPosition: Equatable, Sendable {
    private static let header = HTTPField.Name("last-event-id")

    let execution: ExecutionID
    private(set) var offsets: [ExecutionStream: Int]

    /// The beginning.
    package init(execution: ExecutionID) {
        self.execution = execution
        offsets = [:]
    }

    /// Reads an event's id; nil when it is none of ours.
    package init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let execution = ExecutionID(rawValue: String(parts[0])) else { return nil }
        let numbers = parts[1].split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
        guard numbers.count == 3, numbers.allSatisfy({ $0.map { (0...(1 << 48)).contains($0) } ?? false }) else {
            return nil
        }
        self.execution = execution
        offsets = [.stdout: numbers[0] ?? 0, .stderr: numbers[1] ?? 0, .results: numbers[2] ?? 0]
    }

    /// The position that a client names when it comes back; nil when it names none.
    ///
    /// - Throws: `APIError` for one that cannot be ours.
    init?(lastEventOf request: Request) throws {
        guard let name = Self.header, let text = request.headers[name], !text.isEmpty else { return nil }
        guard let position = EventPosition(text) else {
            throw APIError(.badRequest, "Last-Event-ID is none of this server's: '\(text.prefix(80))'")
        }
        self = position
    }

    subscript(stream: ExecutionStream) -> Int { offsets[stream] ?? 0 }

    mutating func advance(_ stream: ExecutionStream, by bytes: Int) {
        offsets[stream, default: 0] += bytes
    }

    /// Bytes of all streams.
    var total: Int { offsets.values.reduce(0, +) }

    /// As an event's id.
    package var text: String { "\(execution):\(self[.stdout]).\(self[.stderr]).\(self[.results])" }
}
