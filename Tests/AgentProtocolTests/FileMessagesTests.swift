// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import SwiftletTestSupport
import Testing

@Suite struct FileMessagesTests {
    private static let status = FileStatus(
        kind: .regular,
        mode: 0o4755,
        user: 1,
        group: 2,
        size: 3,
        inode: .max,
        modifiedSeconds: -5,
        modifiedNanoseconds: 999_999_999
    )
    private static func request() throws -> FileRequest {
        try FileRequest(
            .write,
            path: Array("/a\u{ff}".utf8) + [0xff],
            flags: [.resumable],
            mode: 0o7777,
            offset: 7,
            size: 9,
            limit: 5,
            after: [0xff]
        )
    }

    private func check<Message: WireMessage>(_ message: Message) throws {
        let payload = message.payload
        #expect(try Message(payload: payload) == message)
        for length in 0..<payload.count {
            #expect(throws: ProtocolError.self) { try Message(payload: Array(payload[..<length])) }
        }
        #expect(throws: ProtocolError.trailingBytes(1)) { try Message(payload: payload + [0]) }
    }

    @Test func eachMessageIsReadAsItWasWritten() throws {
        try check(try Self.request())
        try check(try FileRequest(.status, path: [UInt8(ascii: "/")]))
        try check(Self.status)
        try check(FileEntry(name: [0xff], status: Self.status, target: [1]))
        try check(FileRange(offset: 1, length: UInt64(Int64.max)))
        try check(FileDone(failure: .noSpace, message: "é", count: 4))
        try check(FileDone(flags: [.created, .partial], count: 4, status: Self.status))
    }

    @Test(arguments: [[], Array("relative".utf8), [47, 0], [47] + [UInt8](repeating: 97, count: 4_095)])
    func aPathIsAbsoluteAndWithoutNULAndNotTooLong(path: [UInt8]) throws {
        #expect(throws: ProtocolError.self) { try FileRequest(.read, path: path) }
        var writer = WireWriter()
        writer.write(FileRequest.Operation.read.rawValue)
        writer.write(path)
        let rest = try FileRequest(.read, path: [47]).payload.dropFirst(6)
        #expect(throws: ProtocolError.self) { try FileRequest(payload: writer.bytes + rest) }
    }

    @Test func theLargestRequestFitsIntoAFrame() throws {
        let path = [47] + [UInt8](repeating: 97, count: FileRequest.maximumPath - 1)
        let name = [UInt8](repeating: 97, count: FileEntry.maximumName)
        let request = try FileRequest(.list, path: path, after: name)
        #expect(request.payload.count < ProtocolLimits.maximumPayload)
        #expect(throws: ProtocolError.self) { try FileRequest(.list, path: [47], after: name + [97]) }
        #expect(throws: ProtocolError.self) { try FileRequest(.write, path: [47], mode: 0o10000) }
        #expect(throws: ProtocolError.self) { try FileRequest(.write, path: [47], offset: .max) }
    }

    @Test(arguments: [[], [47], [97, 0], [UInt8](repeating: 97, count: 256)])
    func aNameIsOneInADirectory(name: [UInt8]) {
        let entry = FileEntry(name: name, status: Self.status)
        #expect(throws: ProtocolError.self) { try FileEntry(payload: entry.payload) }
    }

    @Test func numbersOutOfRangeAreRefused() {
        var status = Self.status
        status.size = .max
        #expect(throws: ProtocolError.self) { try FileStatus(payload: status.payload) }
        status = Self.status
        status.mode = 0o10000
        #expect(throws: ProtocolError.self) { try FileStatus(payload: status.payload) }
        status = Self.status
        status.modifiedNanoseconds = 1_000_000_000
        #expect(throws: ProtocolError.self) { try FileStatus(payload: status.payload) }
        status = Self.status
        status.modifiedSeconds = .min
        #expect(throws: ProtocolError.self) { try FileStatus(payload: status.payload) }
        #expect(throws: ProtocolError.self) { try FileDone(payload: FileDone(count: .max).payload) }
        #expect(throws: ProtocolError.self) { try FileRange(payload: FileRange(offset: .max, length: 0).payload) }
        for limit in [0, FileRequest.maximumEntries + 1] {
            #expect(throws: ProtocolError.self) { try FileRequest(.list, path: [47], limit: limit) }
        }
    }

    @Test func aLinkLeadsNoFurtherThanAPathCan() {
        let entry = FileEntry(name: [97], status: Self.status, target: [UInt8](repeating: 97, count: 4_097))
        #expect(throws: ProtocolError.self) { try FileEntry(payload: entry.payload) }
    }

    @Test func entriesFillAFrameWholly() throws {
        let entry = FileEntry(name: [97], status: Self.status, target: [98])
        #expect(try FileEntry.all(in: entry.payload + entry.payload) == [entry, entry])
        #expect(try FileEntry.all(in: []) == [])
        #expect(throws: ProtocolError.self) { try FileEntry.all(in: entry.payload + entry.payload.dropLast()) }
    }

    @Test func anyBytesAreAMessageOrRefused() throws {
        var generator = SeededGenerator(seed: 5)
        let seeds = [
            try Self.request().payload, Self.status.payload, FileEntry(name: [97], status: Self.status).payload,
            FileRange(offset: 1, length: 2).payload,
            FileDone(failure: .busy, message: "x", status: Self.status).payload,
        ]
        for _ in 0..<20_000 {
            var bytes = seeds.randomElement(using: &generator) ?? []
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            if let request = try? FileRequest(payload: bytes) { #expect(request.path.first == 47) }
            if let entries = try? FileEntry.all(in: bytes) { #expect(entries.allSatisfy { $0.name.count < 256 }) }
            if let status = try? FileStatus(payload: bytes) { #expect(Int64(exactly: status.size) != nil) }
            if let range = try? FileRange(payload: bytes) { #expect(Int64(exactly: range.length) != nil) }
            if let done = try? FileDone(payload: bytes) { #expect(Int64(exactly: done.count) != nil) }
        }
    }
}
