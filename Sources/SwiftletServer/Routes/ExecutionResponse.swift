// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import NIOCore
import NIOPosix
import SwiftletSessions
import SwiftletStore

/// A result as the contract's JSON. Large outputs are read, escaped and sent piece by piece, so that memory stays flat.
struct ExecutionResponse: Sendable {
    private static let piece = 64 * 1024

    let result: ExecutionResult

    func response() -> Response {
        let isSmall = result.stdout.count + result.stderr.count <= Self.piece
        guard isSmall else {
            return Response(
                status: .ok,
                headers: [.contentType: "application/json"],
                body: ResponseBody { writer in
                    try await write { try await writer.write($0) }
                    try await writer.finish(nil)
                }
            )
        }
        var buffer = ByteBuffer()
        appendOpening(to: &buffer)
        for part in parts {
            part.appendOpening(to: &buffer)
            var escaper = JSONStringEscaper()
            escaper.escape(part.spool.read(at: 0, upTo: Self.piece), into: &buffer)
            part.appendClosing(escaper, to: &buffer)
        }
        appendFields(to: &buffer)
        return Response(
            status: .ok,
            headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: buffer)
        )
    }

    private func write(_ send: (ByteBuffer) async throws -> Void) async throws {
        var buffer = ByteBuffer()
        appendOpening(to: &buffer)
        for part in parts {
            part.appendOpening(to: &buffer)
            var escaper = JSONStringEscaper()
            var offset = 0
            while offset < part.spool.count {
                let start = offset
                // The rest of a large output is in a file.
                let bytes = try await NIOThreadPool.singleton.runIfActive {
                    part.spool.read(at: start, upTo: Self.piece)
                }
                guard !bytes.isEmpty else { throw ChannelError.eof }
                offset += bytes.count
                escaper.escape(bytes, into: &buffer)
                try await send(buffer)
                buffer.clear()
            }
            part.appendClosing(escaper, to: &buffer)
        }
        appendFields(to: &buffer)
        try await send(buffer)
    }

    // MARK: Pieces

    private struct Part: Sendable {
        let name: StaticString
        let spool: OutputSpool
        let note: String?

        func appendOpening(to buffer: inout ByteBuffer) {
            buffer.writeStaticString("\"")
            buffer.writeStaticString(name)
            buffer.writeStaticString("\":\"")
        }

        /// Ends the string, with our note as a line of its own.
        func appendClosing(_ escaper: JSONStringEscaper, to buffer: inout ByteBuffer) {
            var escaper = escaper
            if let note {
                let last = spool.read(at: max(0, spool.count - 1), upTo: 1)
                let separator = last.isEmpty || last == [UInt8(ascii: "\n")] ? "" : "\n"
                escaper.finish(into: &buffer)
                escaper.escape((separator + note).utf8, into: &buffer)
            }
            escaper.finish(into: &buffer)
            buffer.writeStaticString("\",")
        }
    }

    private var parts: [Part] {
        [
            Part(name: "stdout", spool: result.stdout, note: nil),
            Part(name: "stderr", spool: result.stderr, note: result.note),
        ]
    }

    private static func json(_ restore: RestoreRecord) -> JSONValue {
        [
            "generation": .string(restore.generation),
            "origin": .string(restore.origin),
            "template": restore.template.map { .string($0) } ?? .null,
            "confirmed": .array(restore.confirmed.map { .string($0) }),
            "milliseconds": .integer(restore.milliseconds),
        ]
    }

    private func appendOpening(to buffer: inout ByteBuffer) {
        buffer.writeStaticString("{")
    }

    /// Everything but the output, and the object's end.
    private func appendFields(to buffer: inout ByteBuffer) {
        buffer.writeStaticString("\"results\":[")
        buffer.writeString(result.results.bundles.joined(separator: ","))
        buffer.writeStaticString("],")
        let fields: JSONValue = [
            "exit_code": .integer(result.exitCode),
            "execution_time": .number(result.executionTime),
            "cpu_time": .number(result.cpuTime),
            "created_at": .init(result.createdAt),
            "session_id": .string(result.session.rawValue),
            "language": .string(result.language.rawValue),
            "vm_id": .string(result.vmID),
            "vm_started_at": .init(result.vmStartedAt),
            "outcome": .string(result.outcome.rawValue),
            "signal": result.signal.map { .integer($0) } ?? .null,
            "timed_out": .bool(result.outcome == .timedOut),
            "state_lost": .bool(result.stateLost),
            "restore": result.restore.map(Self.json) ?? .null,
            "stdout_dropped_bytes": .integer(result.stdoutDroppedBytes),
            "stderr_dropped_bytes": .integer(result.stderrDroppedBytes),
            "results_dropped": .integer(result.results.dropped),
        ]
        var rest = ByteBuffer()
        fields.write(to: &rest)
        rest.moveReaderIndex(forwardBy: 1)
        buffer.writeBuffer(&rest)
    }
}
