// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import Glibc
import Testing

/// A named pipe that a program reads a line from, and so waits for the test.
final class Gate {
    private let descriptor: Int32

    init(path: String) throws {
        try #require(mkfifo(path, 0o600) == 0)
        // Open for both, it waits for no reader, and keeps the line until one comes.
        descriptor = Glibc.open(path, O_RDWR | O_CLOEXEC)
        try #require(descriptor >= 0)
    }

    deinit { close(descriptor) }

    func open() { #expect(write(descriptor, "\n", 1) == 1) }
}

/// Operations on files, paths without a slash at their beginning being below the agent's directory.
extension AgentHarness {
    func make(_ name: String, _ content: String) throws {
        try Data(content.utf8).write(to: URL(filePath: "\(directory)/\(name)"))
    }

    func makeGate(_ name: String) throws -> Gate { try Gate(path: "\(directory)/\(name)") }

    /// How many entries a directory has.
    func names(_ path: String) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "\(directory)/\(path)").count
    }

    /// Opens a stream with a request; returns the stream.
    func open(
        _ operation: FileRequest.Operation,
        _ path: String,
        flags: FileRequest.Flags = [],
        mode: UInt16? = nil,
        offset: UInt64 = 0,
        size: UInt64? = nil,
        limit: UInt32 = 1_000,
        after: String = ""
    ) throws -> UInt32 {
        let path = path.hasPrefix("/") ? path : "\(directory)/\(path)"
        let request = try FileRequest(
            operation,
            path: Array(path.utf8),
            flags: flags,
            mode: mode,
            offset: offset,
            size: size,
            limit: limit,
            after: Array(after.utf8)
        )
        let stream = newStream()
        try send(Frame(.file, stream: stream, payload: request.payload))
        return stream
    }

    /// How an operation ends that has no content.
    func done(_ stream: UInt32) throws -> FileDone {
        while true {
            let frame = try next(stream: stream)
            if frame.type == .done { return try FileDone(payload: frame.payload) }
            #expect(frame.type == .credit)
        }
    }

    /// The failure of an operation that is refused at once.
    func refusal(_ operation: FileRequest.Operation, _ path: String) throws -> FileDone.Failure? {
        let frame = try next(stream: try open(operation, path))
        guard frame.type == .done else {
            Issue.record("\(path): \(frame.type)")
            return nil
        }
        return try FileDone(payload: frame.payload).failure
    }

    /// Receives a stream's content up to its end, and gives credit for it.
    func content(of stream: UInt32) throws -> ([UInt8], FileDone) {
        var content: [UInt8] = []
        while true {
            let frame = try next(stream: stream)
            if frame.type == .done { return (content, try FileDone(payload: frame.payload)) }
            #expect(frame.type == .data && frame.payload.first == Channel.content.rawValue)
            content += frame.payload.dropFirst()
            try grant(UInt32(frame.payload.count - 1), to: stream)
        }
    }

    func read(_ path: String, _ range: FileRange) throws -> ([UInt8], FileDone) {
        let stream = try open(.read, path)
        #expect(try next(stream: stream).type == .opened)
        try send(Frame(.range, stream: stream, payload: range.payload))
        return try content(of: stream)
    }

    func list(_ path: String, limit: UInt32, after: String = "") throws -> ([FileEntry], FileDone) {
        let stream = try open(.list, path, limit: limit, after: after)
        let (content, done) = try content(of: stream)
        return (try FileEntry.all(in: content), done)
    }

    /// Opens a file to write; returns the stream and its first frame.
    func beginWriting(
        _ path: String,
        size: UInt64?,
        mode: UInt16? = nil,
        flags: FileRequest.Flags = [],
        offset: UInt64 = 0
    ) throws -> (UInt32, Frame) {
        let stream = try open(.write, path, flags: flags, mode: mode, offset: offset, size: size)
        return (stream, try next(stream: stream))
    }

    func content(_ text: String, to stream: UInt32) throws {
        try send(Frame(.data, stream: stream, payload: [Channel.content.rawValue] + Array(text.utf8)))
    }

    func endWriting(_ stream: UInt32) throws -> FileDone {
        try send(Frame(.end, stream: stream, payload: [Channel.content.rawValue]))
        return try done(stream)
    }
}
