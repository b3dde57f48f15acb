// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import SwiftletCore
import SwiftletHTTP
import SwiftletSessions
import Testing

@Suite struct EventStreamTests {
    private let handle: ExecutionHandle

    private static let text = "Größe 🐦 " + String(repeating: "x", count: 200_000) + " Ende\n"
    private static let bytes: [UInt8] = Array(text.utf8) + [0xff, 0x00, 0xc3]

    init() {
        handle = FakeExecutions(stdout: Self.bytes, results: Array("{\"a\":1}\n{\"b\":2}\n".utf8))
            .handle(owner: UserID(rawValue: 1))
    }

    private struct Event {
        var name = ""
        var id: String?
        var data = ""
    }

    /// Follows a handle; gives up after so many events.
    private func follow(_ position: EventPosition, upTo limit: Int = .max) async throws -> [Event] {
        struct Enough: Error {}
        var events: [Event] = []
        do {
            try await EventStream(handle: handle, position: position).send { buffer in
                let lines = String(buffer: buffer).split(separator: "\n")
                var event = Event()
                for line in lines {
                    if line.hasPrefix("event: ") { event.name = String(line.dropFirst(7)) }
                    if line.hasPrefix("id: ") { event.id = String(line.dropFirst(4)) }
                    if line.hasPrefix("data: ") { event.data = String(line.dropFirst(6)) }
                }
                events.append(event)
                if events.count >= limit { throw Enough() }
            }
        } catch is Enough {}
        return events
    }

    private func bytes(of events: [Event], _ name: String) throws -> [UInt8] {
        try events.filter { $0.name == name }.reduce(into: []) { bytes, event in
            let object = try #require(JSONSerialization.jsonObject(with: Data(event.data.utf8)) as? [String: Any])
            if let text = object["text"] as? String {
                bytes += Array(text.utf8)
            } else {
                let encoded = try #require(object["base64"] as? String)
                bytes += try #require(Data(base64Encoded: encoded))
            }
        }
    }

    @Test func everyByteArrivesAlsoThoseThatAreNoText() async throws {
        let events = try await follow(EventPosition(execution: handle.record.id))
        #expect(events.first?.name == "start")
        #expect(events.last?.name == "exit")
        #expect(try bytes(of: events, "stdout") == Self.bytes)
        #expect(events.filter { $0.name == "result" }.map(\.data) == [#"{"a":1}"#, #"{"b":2}"#])
    }

    @Test func aStreamResumesBehindAnyEventWithoutRepetition() async throws {
        let whole = try await follow(EventPosition(execution: handle.record.id))
        for limit in 2...whole.count {
            let first = try await follow(EventPosition(execution: handle.record.id), upTo: limit)
            let id = try #require(first.last?.id)
            let position = try #require(EventPosition(id))
            let rest = try await follow(position)
            #expect(try bytes(of: first, "stdout") + bytes(of: rest, "stdout") == Self.bytes)
            #expect((first + rest).filter { $0.name == "result" }.count == 2)
        }
    }

    @Test(arguments: [
        ([], 0), ([0x41], 0), ([0xc3], 1), ([0xc3, 0xa9], 0), ([0xe2, 0x82], 2), ([0xe2, 0x82, 0xac], 0),
        ([0xf0, 0x9f, 0x90], 3), ([0xf0, 0x9f, 0x90, 0xa6], 0), ([0x80, 0x80, 0x80, 0x80], 0), ([0xff], 1),
    ])
    func aCharacterIsNotCut(bytes: [UInt8], tail: Int) {
        #expect(EventStream.openTail(of: bytes) == tail)
    }

    @Test(arguments: [
        "", "x", "exec-1:0.0.0", "\(ExecutionID.random()):0.0", "\(ExecutionID.random()):-1.0.0",
        "\(ExecutionID.random()):0.0.0:", "\(ExecutionID.random()):0.0.99999999999999999999",
    ])
    func aPositionThatIsNoneIsRefused(text: String) {
        #expect(EventPosition(text) == nil)
    }

    @Test func aPositionIsReadAsItWasWritten() throws {
        let text = "\(ExecutionID.random()):12.0.7"
        #expect(try #require(EventPosition(text)).text == text)
    }
}
