// SPDX-License-Identifier: Apache-2.0

import Logging
import SwiftletTestSupport

/// The log lines of a server under test.
struct RecordedLog: Sendable {
    struct Line: Sendable {
        let level: Logger.Level
        let message: String
        let metadata: [String: String]
    }

    private let lines = Locked<[Line]>([])

    var logger: Logger { Logger(label: "test") { _ in Handler(lines: lines) } }

    /// The lines about requests, in the order in which the requests ended.
    var requests: [Line] { lines.value.filter { $0.message == "Request" } }

    private struct Handler: LogHandler {
        let lines: Locked<[Line]>
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.debug

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let metadata = metadata.merging(event.metadata ?? [:]) { $1 }.mapValues { "\($0)" }
            let line = Line(level: event.level, message: "\(event.message)", metadata: metadata)
            lines.withLock { $0.append(line) }
        }
    }
}
