// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOCore
import SwiftletHTTP
import Synchronization
import Testing

@Suite struct JSONLogHandlerTests {
    /// Lines that a test's logger wrote.
    private final class Lines: Sendable {
        private let lines = Mutex<[String]>([])

        var all: [String] { lines.withLock { $0 } }

        func logger(_ label: String = "test") -> Logger {
            Logger(label: label) { label in
                let moment = Date(timeIntervalSince1970: 1_767_225_600.25)
                return JSONLogHandler(label: label, now: { moment }) { line in
                    self.lines.withLock { $0.append(String(buffer: line)) }
                }
            }
        }

        var objects: [[String: Any]] {
            get throws {
                try all.map {
                    try #require(JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
                }
            }
        }
    }

    @Test func aLineIsAnObjectWithAllThatIsKnown() throws {
        let lines = Lines()
        var logger = lines.logger("swiftlet")
        logger[metadataKey: "request.id"] = "r1"
        logger.warning("Words", metadata: ["n": "\(3)", "list": ["a", "b"], "map": ["k": "v"]])
        #expect(
            lines.all == [
                #"{"timestamp":"2026-01-01T00:00:00.250Z","level":"warning","label":"swiftlet","message":"Words","#
                    + #""list":["a","b"],"map":{"k":"v"},"n":"3","request.id":"r1"}"# + "\n"
            ]
        )
    }

    @Test(arguments: ["\n{\"level\":\"info\"}", "\"", "\\", "\u{0}\u{1b}[2J", "\r\n", "é\u{2028}😀", "\u{7f}"])
    func nothingThatIsLoggedBreaksALine(text: String) throws {
        let lines = Lines()
        lines.logger().error("\(text)", metadata: [text: "\(text)"])
        let line = try #require(lines.all.first)
        #expect(line.utf8.count { $0 == UInt8(ascii: "\n") } == 1)
        let object = try #require(try lines.objects.first)
        #expect(object["message"] as? String == text)
        #expect(object[text] as? String == text)
    }

    @Test func metadataDoesNotHideTheLinesOwnFields() throws {
        let lines = Lines()
        lines.logger().info("m", metadata: ["message": "other", "level": "trace"])
        let object = try #require(try lines.objects.first)
        #expect(object["message"] as? String == "m")
        #expect(object["level"] as? String == "info")
        #expect(object["metadata.message"] as? String == "other")
    }

    @Test func levelAndMetadataAreValues() throws {
        let lines = Lines()
        let one = lines.logger()
        var other = one
        other.logLevel = .error
        other[metadataKey: "k"] = "v"
        one.info("one")
        other.info("other")
        #expect(try lines.objects.count == 1)
        #expect(try lines.objects.first?["k"] == nil)
    }
}
