// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import Logging
package import NIOCore
import SwiftletJSON
import Synchronization

/// Writes each line of the log as a JSON object: `timestamp`, `level`, `label`, `message`, and the metadata as fields beside them.
package struct JSONLogHandler: LogHandler {
    /// Takes a line with its end.
    package typealias Output = @Sendable (ByteBuffer) -> Void

    private static let own: Set = ["timestamp", "level", "label", "message"]
    private static let standardErrorTurn = Mutex(())

    package var logLevel: Logger.Level = .info
    package var metadata: Logger.Metadata = [:]
    private let label: String
    private let now: @Sendable () -> Date
    private let output: Output

    package init(
        label: String,
        now: @escaping @Sendable () -> Date = { Date() },
        output: @escaping Output = JSONLogHandler.toStandardError
    ) {
        self.label = label
        self.now = now
        self.output = output
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var fields: [JSONValue.Field] = [
            .init(name: "timestamp", value: .string(Self.text(of: now()))),
            .init(name: "level", value: .string(event.level.rawValue)),
            .init(name: "label", value: .string(label)),
            .init(name: "message", value: .string("\(event.message)")),
        ]
        var values = metadata.merging(event.metadata ?? [:]) { $1 }
        if let error = event.error { values["error"] = "\(error)" }
        for (name, value) in values.sorted(by: { $0.key < $1.key }) {
            let shown = Self.own.contains(name) ? "metadata.\(name)" : name
            fields.append(.init(name: shown, value: Self.json(of: value)))
        }
        var line = ByteBuffer()
        JSONValue.object(fields).write(to: &line)
        line.writeStaticString("\n")
        output(line)
    }

    private static func json(of value: Logger.Metadata.Value) -> JSONValue {
        switch value {
        case .string(let text): .string(text)
        case .stringConvertible(let value): .string("\(value)")
        case .array(let values): .array(values.map(json))
        case .dictionary(let values):
            .object(values.sorted { $0.key < $1.key }.map { .init(name: $0.key, value: json(of: $0.value)) })
        }
    }

    /// RFC 3339 with milliseconds, UTC.
    private static func text(of moment: Date) -> String {
        String(moment.contractText.dropLast(3)) + "Z"
    }

    /// Whole lines, whichever threads they come from.
    package static let toStandardError: Output = { line in
        standardErrorTurn.withLock { _ in
            var rest = line.readableBytesView
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
                // The log cannot be written, so this error cannot be logged either.
                guard count > 0 || errno == EINTR else { return }
                rest = rest.dropFirst(max(0, count))
            }
        }
    }
}
