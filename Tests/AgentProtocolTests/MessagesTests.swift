// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import SwiftletTestSupport
import Testing

@Suite struct MessagesTests {
    private static let prepare = Prepare(
        generation: Array(1...16),
        wallClock: 1_700_000_000_000_000_000,
        entropy: Array(repeating: 7, count: 64),
        machineID: String(repeating: "a", count: 32),
        hostName: "vm-abc",
        diskLimit: 4 << 30,
        environment: [.init(name: "A", value: "é"), .init(name: "B", value: "")]
    )

    private static let exit = ExitReport(
        outcome: .signaled,
        code: 9,
        flags: [.stateLost, .outOfMemory],
        wallTime: 1,
        cpuTime: .max,
        droppedStdout: 3,
        droppedStderr: 4
    )

    /// Reads a message back; also at every length that cuts it, and with a byte too many.
    private func check<Message: WireMessage>(_ message: Message) throws {
        let payload = message.payload
        #expect(try Message(payload: payload) == message)
        for length in 0..<payload.count {
            #expect(throws: ProtocolError.self) { try Message(payload: Array(payload[..<length])) }
        }
        #expect(throws: ProtocolError.trailingBytes(1)) { try Message(payload: payload + [0]) }
    }

    @Test func eachMessageIsReadAsItWasWritten() throws {
        try check(Hello(kernelRelease: "6.1.0", memory: 1 << 29))
        try check(Self.prepare)
        try check(Prepared(generation: Array(1...16), confirmed: .all))
        try check(ExecuteRequest(language: .bash, timeout: 5_000, sourceLength: 16 << 20))
        try check(Self.exit)
        try check(ExecutionRefusal(code: .busy, message: "busy"))
    }

    @Test func valuesOutOfRangeAreRefused() {
        #expect(throws: ProtocolError.self) { try ExecuteRequest(payload: [4, 0, 0, 0, 0, 0, 0, 0, 0]) }
        let tooLong = ExecuteRequest(language: .bash, timeout: 0, sourceLength: (16 << 20) + 1)
        #expect(throws: ProtocolError.self) { try ExecuteRequest(payload: tooLong.payload) }
        #expect(throws: ProtocolError.self) { try ExecutionRefusal(payload: [9, 0, 0, 0, 0]) }
        var exit = Self.exit.payload
        exit[0] = 5
        #expect(throws: ProtocolError.self) { try ExitReport(payload: exit) }
        for code in [Int32(-1), 0, 65] {
            let report = ExitReport(outcome: .signaled, code: code, wallTime: 0, cpuTime: 0)
            #expect(throws: ProtocolError.self) { try ExitReport(payload: report.payload) }
        }
        let dropped = ExitReport(outcome: .exited, code: 0, wallTime: 0, cpuTime: 0, droppedStderr: 1 << 48)
        #expect(throws: ProtocolError.self) { try ExitReport(payload: dropped.payload) }
        var prepare = Self.prepare
        prepare.entropy = []
        #expect(throws: ProtocolError.self) { try Prepare(payload: prepare.payload) }
        prepare = Self.prepare
        prepare.generation = [1]
        #expect(throws: ProtocolError.self) { try Prepare(payload: prepare.payload) }
    }

    @Test func aStringMustBeTextAndShort() {
        #expect(throws: ProtocolError.invalidUTF8) { try ExecutionRefusal(payload: [1, 1, 0, 0, 0, 0xff]) }
        #expect(throws: ProtocolError.stringTooLong(0x7fff_ffff)) {
            try ExecutionRefusal(payload: [1, 0xff, 0xff, 0xff, 0x7f])
        }
    }

    @Test func anyBytesAreAMessageOrRefused() {
        var generator = SeededGenerator(seed: 2)
        for _ in 0..<50_000 {
            var bytes = Self.prepare.payload
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            _ = try? Prepare(payload: bytes)
            _ = try? ExitReport(payload: Array(bytes.prefix(45)))
            _ = try? Hello(payload: bytes)
        }
    }
}

@Suite struct FlowControlTests {
    @Test func aSenderTakesNoMoreThanItHas() {
        var window = SendWindow(initial: 10)
        #expect(window.take(upTo: 7) == 7)
        #expect(window.take(upTo: 7) == 3)
        #expect(window.take(upTo: 7) == 0)
        window.grant(5)
        #expect(window.take(upTo: 7) == 5)
    }

    @Test func aLyingPeerCannotOverflowTheWindow() {
        var window = SendWindow(initial: 10)
        for _ in 0..<10 { window.grant(.max) }
        #expect(window.available == Int(UInt32.max))
    }

    @Test func aReceiverRefusesWhatItDidNotGrant() throws {
        var window = ReceiveWindow(initial: 100)
        try window.receive(100, stream: 1)
        #expect(throws: ProtocolError.creditExceeded(stream: 1)) { try window.receive(1, stream: 1) }
        #expect(window.consume(24) == nil)
        #expect(window.consume(1) == 25)
        try window.receive(25, stream: 1)
        #expect(throws: ProtocolError.creditExceeded(stream: 1)) { try window.receive(1, stream: 1) }
    }
}
