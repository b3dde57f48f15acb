// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import NIOCore
import NIOPosix
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

/// A result as JSON, in the shape of the route that it is for. Large outputs are read, escaped and sent piece by piece, so that memory stays flat.
struct ExecutionResponse: Sendable {
    enum Form: Sendable {
        /// Of `POST /execute`.
        case result
        /// Of `GET /v1/executions/{id}`, for an execution that is over.
        case task
    }

    private static let piece = 64 * 1024

    let result: ExecutionResult
    let form: Form

    func response() -> Response {
        let isSmall = result.stdout.count + result.stderr.count + result.results.count <= Self.piece
        guard isSmall else {
            return Response(
                status: .ok,
                headers: [.contentType: "application/json"],
                body: .streamed { try await write($0) }
            )
        }
        var buffer = ByteBuffer()
        appendOpening(to: &buffer)
        for part in parts {
            part.appendOpening(to: &buffer)
            var escaper = JSONStringEscaper()
            escaper.escape(part.view.read(at: 0, upTo: Self.piece), into: &buffer)
            part.appendClosing(escaper, to: &buffer)
        }
        appendResults(result.results.read(at: 0, upTo: result.results.count), to: &buffer)
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
            try await part.view.forEachPiece(of: 0..<part.view.count) { bytes in
                escaper.escape(bytes, into: &buffer)
                try await send(buffer)
                buffer.clear()
            }
            part.appendClosing(escaper, to: &buffer)
        }
        let results = result.results
        let lines = try await NIOThreadPool.singleton.runIfActive { results.read(at: 0, upTo: results.count) }
        appendResults(lines, to: &buffer)
        appendFields(to: &buffer)
        try await send(buffer)
    }

    // MARK: Pieces

    private struct Part: Sendable {
        let name: String
        let view: OutputView
        let note: String?

        func appendOpening(to buffer: inout ByteBuffer) {
            buffer.writeStaticString("\"")
            buffer.writeString(name)
            buffer.writeStaticString("\":\"")
        }

        /// Ends the string, with our note as a line of its own.
        func appendClosing(_ escaper: JSONStringEscaper, to buffer: inout ByteBuffer) {
            var escaper = escaper
            if let note {
                let last = view.read(at: max(0, view.count - 1), upTo: 1)
                let separator = last.isEmpty || last == [UInt8(ascii: "\n")] ? "" : "\n"
                escaper.finish(into: &buffer)
                escaper.escape((separator + note).utf8, into: &buffer)
            }
            escaper.finish(into: &buffer)
            buffer.writeStaticString("\",")
        }
    }

    private var parts: [Part] {
        let prefix = form == .task ? "serialized_" : ""
        return [
            Part(name: prefix + "stdout", view: result.stdout, note: nil),
            Part(name: prefix + "stderr", view: result.stderr, note: result.record.note),
        ]
    }

    private func appendOpening(to buffer: inout ByteBuffer) {
        buffer.writeStaticString("{")
    }

    /// MIME bundles are JSON already, a line each.
    private func appendResults(_ lines: [UInt8], to buffer: inout ByteBuffer) {
        buffer.writeStaticString("\"results\":[")
        // A server that was killed may have written a part of a line.
        let whole = lines.prefix((lines.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1)
        for (index, line) in whole.split(separator: UInt8(ascii: "\n")).enumerated() {
            if index > 0 { buffer.writeStaticString(",") }
            buffer.writeBytes(line)
        }
        buffer.writeStaticString("],")
    }

    /// Everything but the output, and the object's end.
    private func appendFields(to buffer: inout ByteBuffer) {
        let fields =
            switch form {
            case .result: ExecutionFields.ofResult(result.record)
            case .task: ExecutionFields.ofRecord(result.record)
            }
        var rest = ByteBuffer()
        JSONValue.object(fields).write(to: &rest)
        rest.moveReaderIndex(forwardBy: 1)
        buffer.writeBuffer(&rest)
    }
}
