// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import Glibc
import SwiftletTestSupport
import Testing

/// Sequences of frames that a host with errors might send, some valid, some with wrong fields, lengths or streams.
///
/// The agent does what a valid frame says, so paths stay within its directory and sources are comments.
@Suite(.serialized, .timeLimit(.minutes(5)), .ownThread) struct HostFramesFuzzTests {
    @Test func `any sequence of frames is served, or ends the agent with a protocol error`() throws {
        var generator = SeededGenerator(seed: 21)
        var served = 0
        let rounds = fuzzRounds(150)
        for round in 0..<rounds {
            let agent = try AgentHarness()
            try agent.make("f", "content")
            try #require(symlink("loop", agent.directory + "/loop") == 0)
            // Each other agent has a host that prepared it.
            if round % 2 == 0 { _ = try agent.prepare() }
            let frames = (0..<Int.random(in: 1...40, using: &generator)).map { _ in
                frame(in: agent.directory, using: &generator)
            }
            if try isServed(frames, by: agent, round: round) { served += 1 }
        }
        // Both outcomes must occur, or the sequences are too harmless or too wrong.
        #expect((1..<rounds).contains(served))
    }

    /// Sends the frames; whether the agent still answers after them. Fails when it ended in another way than by a protocol error.
    private func isServed(_ frames: [Frame], by agent: AgentHarness, round: Int) throws -> Bool {
        do {
            for frame in frames { try agent.send(frame) }
            try agent.ping()
            let exit = try agent.end()
            #expect(exit.code == 128 + SIGKILL, "Round \(round): \(exit)")
            return true
        } catch is AgentHarness.NoFrame {
            let exit = try agent.waitForExit()
            #expect(exit.code == 1, "Round \(round)")
            #expect(exit.console.contains("FATAL The host broke the protocol"), "Round \(round): \(exit.console)")
            return false
        }
    }

    private func frame(in directory: String, using generator: inout SeededGenerator) -> Frame {
        let stream = UInt32.random(in: 1...6, using: &generator)
        switch Int.random(in: 0..<100, using: &generator) {
        case 0..<20:
            return Frame(.execute, stream: stream, payload: execute(using: &generator))
        case 20..<35:
            let channel = Channel.allCases.randomElement(using: &generator) ?? .source
            let count = Int.random(in: 0...20, using: &generator)
            let isComment = Bool.random(using: &generator)
            let text = [UInt8](repeating: UInt8(ascii: isComment ? "#" : " "), count: count)
            return Frame(.data, stream: stream, payload: [channel.rawValue] + text)
        case 35..<50:
            return Frame(.end, stream: stream, payload: [Bool.random(using: &generator) ? 0 : 4])
        case 50..<60:
            return Frame(.credit, stream: stream, payload: bytes(4, using: &generator))
        case 60..<70:
            return Frame(.cancel, stream: stream, payload: [UInt8.random(in: 1...2, using: &generator)])
        case 70..<90:
            return Frame(.file, stream: stream, payload: file(in: directory, using: &generator))
        case 90..<94:
            return Frame(.ping, payload: bytes(8, using: &generator))
        case 94..<97:
            return Frame(.prepare, payload: mutated(AgentHarness.identity().payload, using: &generator))
        default:
            // A type that no host sends, or a payload of the wrong length. A file's could be a path outside of the directory.
            let types = FrameType.allCases.filter { $0 != .file }
            let type = types.randomElement(using: &generator) ?? .hello
            let count = Int.random(in: 0...30, using: &generator)
            return Frame(
                type,
                stream: UInt32.random(in: 0...6, using: &generator),
                payload: bytes(count, using: &generator)
            )
        }
    }

    private func execute(using generator: inout SeededGenerator) -> [UInt8] {
        let language = GuestLanguage.allCases.randomElement(using: &generator) ?? .bash
        let length = UInt32.random(in: 0...20, using: &generator)
        let timeout: UInt32 = Bool.random(using: &generator) ? 0 : .random(in: 1...10, using: &generator)
        let payload = ExecuteRequest(language: language, timeout: timeout, sourceLength: length).payload
        return Int.random(in: 0..<10, using: &generator) == 0 ? mutated(payload, using: &generator) : payload
    }

    /// A request whose path is in the directory; every other field may be anything.
    private func file(in directory: String, using generator: inout SeededGenerator) -> [UInt8] {
        let names = [
            "", "/f", "/./f", "/sub/../f", "/none", "/loop", "/d/e", "/f/g", "/" + String(repeating: "n", count: 300),
        ]
        let path = directory + (names.randomElement(using: &generator) ?? "")
        var writer = WireWriter()
        writer.write(UInt8.random(in: 0...9, using: &generator))
        writer.write(Array(path.utf8))
        writer.write(UInt8.random(in: 0...7, using: &generator))
        writer.write(Bool.random(using: &generator) ? 0o644 : UInt16.random(in: 0...0xffff, using: &generator))
        writer.write(extreme(using: &generator))
        writer.write(extreme(using: &generator))
        writer.write(UInt32.random(in: 0...10_100, using: &generator))
        writer.write(bytes(Int.random(in: 0...10, using: &generator), using: &generator))
        // Shorter or longer than the message, but for the path.
        switch Int.random(in: 0..<10, using: &generator) {
        case 0: return Array(writer.bytes.dropLast(Int.random(in: 1...5, using: &generator)))
        case 1: return writer.bytes + [0]
        default: return writer.bytes
        }
    }

    private func extreme(using generator: inout SeededGenerator) -> UInt64 {
        [0, 0, 0, 1, 7, .max, UInt64(Int64.max), 1 << 40].randomElement(using: &generator) ?? 0
    }

    private func bytes(_ count: Int, using generator: inout SeededGenerator) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    /// The payload with one byte changed, cut off or added.
    private func mutated(_ payload: [UInt8], using generator: inout SeededGenerator) -> [UInt8] {
        var payload = payload
        let index = Int.random(in: 0..<payload.count, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: payload[index] = UInt8.random(in: 0...255, using: &generator)
        case 1: payload.removeSubrange(index...)
        default: payload.insert(UInt8.random(in: 0...255, using: &generator), at: index)
        }
        return payload
    }
}
