// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
package import NIOCore
import NIOPosix
import SwiftletCore
import SwiftletJSON
package import SwiftletSessions

/// An execution as server-sent events (WHATWG HTML, 9.2), from a position to its end.
///
/// Each event's id is the position behind it, so a client that reconnects with it gets the events that it has not received, and none twice.
package struct EventStream: Sendable {
    private static let piece = 64 * 1024
    /// No bundle is larger.
    private static let resultPiece = 5 << 20
    private static let heartbeat: TimeAmount = .seconds(10)

    let handle: ExecutionHandle
    let position: EventPosition

    package init(handle: ExecutionHandle, position: EventPosition) {
        self.handle = handle
        self.position = position
    }

    /// - Throws: `APIError` when the position lies beyond the output, or the output has expired.
    func response() throws -> Response {
        let record = handle.record
        guard record.outputExpiredAt == nil else { throw SessionError.outputExpired(record.id) }
        for stream in ExecutionStream.allCases where position[stream] > record.size(of: stream).bytes {
            throw APIError(.rangeNotSatisfiable, "Last-Event-ID lies beyond the end of \(stream)")
        }
        return Response(
            status: .ok,
            headers: [.contentType: "text/event-stream", .cacheControl: "no-store"],
            // A write to a closed connection fails: the next event or heartbeat detects that the client has disconnected.
            body: .streamed { try await send($0) }
        )
    }

    /// Sends all events, and returns after the last.
    package func send(_ write: (ByteBuffer) async throws -> Void) async throws {
        var position = position
        let follower = handle.subscribe(from: position.total)
        defer { handle.unsubscribe(follower) }
        try await write(Self.opening(handle.record))
        while true {
            // Read before the streams: output that comes later has another version.
            let version = handle.version
            let isFinal = handle.isFinal
            var isNew = false
            for stream in ExecutionStream.allCases {
                while let buffer = try await next(of: stream, &position, isFinal: isFinal) {
                    try Task.checkCancellation()
                    try await write(buffer)
                    handle.delivered(position.total, to: follower)
                    isNew = true
                    if !isFinal { break }
                }
            }
            if isFinal { return try await write(Self.exit(handle.record, position)) }
            guard !isNew else { continue }
            await handle.waitForChange(after: version, within: Self.heartbeat)
            try Task.checkCancellation()
            // A comment: the write fails if the client has disconnected.
            if handle.version == version { try await write(ByteBuffer(string: ": \n\n")) }
        }
    }

    /// The next event of a stream; nil when there is none yet.
    private func next(
        of stream: ExecutionStream,
        _ position: inout EventPosition,
        isFinal: Bool
    ) async throws -> ByteBuffer? {
        let offset = position[stream]
        let log = handle.log(of: stream)
        guard log.count > offset else { return nil }
        let limit = stream == .results ? Self.resultPiece : Self.piece
        var bytes =
            if log.inMemory == nil {
                try await NIOThreadPool.singleton.runIfActive { log.read(at: offset, upTo: limit) }
            } else {
                log.read(at: offset, upTo: limit)
            }
        switch stream {
        case .results:
            guard let end = bytes.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
            bytes = Array(bytes[...end])
        case .stdout, .stderr:
            let isLast = isFinal && offset + bytes.count >= log.count
            if !isLast { bytes.removeLast(Self.openTail(of: bytes)) }
        }
        guard !bytes.isEmpty else { return nil }
        position.advance(stream, by: bytes.count)
        let name = stream == .results ? "result" : stream.rawValue
        return Self.event(name, position, Self.data(bytes, stream, offset))
    }

    /// Bytes at the end that are the beginning of a character, 0...3.
    package static func openTail(of bytes: [UInt8]) -> Int {
        for length in 1...3 where bytes.count >= length {
            let byte = bytes[bytes.count - length]
            if byte < 0x80 { return 0 }
            if byte >= 0xc0 {
                let whole = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2
                return whole > length ? length : 0
            }
        }
        return 0
    }

    // MARK: Events

    /// The new bytes: as text where they are UTF-8, else in base64.
    private static func data(_ bytes: [UInt8], _ stream: ExecutionStream, _ offset: Int) -> ByteBuffer {
        var buffer = ByteBuffer()
        if stream == .results {
            buffer.writeBytes(bytes.dropLast())
            return buffer
        }
        buffer.writeString("{\"offset\":\(offset),\"bytes\":\(bytes.count),")
        if String(validating: bytes, as: UTF8.self) != nil {
            buffer.writeStaticString("\"text\":\"")
            var escaper = JSONStringEscaper()
            escaper.escape(bytes, into: &buffer)
            escaper.finish(into: &buffer)
        } else {
            buffer.writeStaticString("\"base64\":\"")
            buffer.writeString(Data(bytes).base64EncodedString())
        }
        buffer.writeStaticString("\"}")
        return buffer
    }

    private static func opening(_ record: ExecutionRecord) -> ByteBuffer {
        // Without an id: a client that is cut here comes back to where it was before.
        let value: JSONValue = [
            "execution_id": .string(record.id.rawValue), "session_id": .string(record.session.rawValue),
            "language": .string(record.language), "created_at": .init(record.createdAt),
        ]
        return ByteBuffer(string: "retry: 1000\nevent: start\ndata: \(value.text)\n\n")
    }

    private static func exit(_ record: ExecutionRecord, _ position: EventPosition) -> ByteBuffer {
        event("exit", position, ByteBuffer(string: JSONValue.object(ExecutionFields.ofResult(record)).text))
    }

    private static func event(_ name: String, _ position: EventPosition, _ data: ByteBuffer) -> ByteBuffer {
        var buffer = ByteBuffer(string: "event: \(name)\nid: \(position.text)\ndata: ")
        buffer.writeImmutableBuffer(data)
        buffer.writeStaticString("\n\n")
        return buffer
    }
}
