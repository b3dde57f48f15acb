// SPDX-License-Identifier: Apache-2.0

import SwiftletHTTP
import SwiftletTestSupport
import Testing

@Suite struct MultipartParserTests {
    private static let type = "multipart/form-data; boundary=xyz"

    /// All events of a body that arrives in pieces, a part's content put together.
    private func events(
        _ body: [UInt8],
        type: String = type,
        pieces: (Int) -> Int = { $0 }
    ) throws -> [MultipartParser.Event] {
        var parser = try MultipartParser(contentType: type)
        var events: [MultipartParser.Event] = []
        var rest = body[...]
        while !rest.isEmpty {
            let piece = rest.prefix(max(1, pieces(rest.count)))
            rest = rest.dropFirst(piece.count)
            parser.append(piece)
            while let event = try parser.next() {
                if case .content(let new) = event, case .content(let old)? = events.last {
                    events[events.count - 1] = .content(old + new)
                } else {
                    events.append(event)
                }
            }
        }
        return events
    }

    private func part(_ name: String, _ content: [UInt8]) -> [UInt8] {
        Array("--xyz\r\nContent-Disposition: form-data; name=\"\(name)\"; filename=\"/etc/passwd\"\r\n\r\n".utf8)
            + content
            + Array("\r\n".utf8)
    }

    @Test func partsAreReadHoweverTheyAreCut() throws {
        var generator = SystemRandomNumberGenerator()
        // What looks like a boundary and is none.
        let contents: [[UInt8]] = [
            [], [0], Array("\r\n--xy\r\n--xyy\r\n-".utf8), Array("\r\n".utf8), Array("--xyz".utf8),
            (0..<5_000).map { _ in .random(in: 0...255) },
        ]
        var body = Array("a preamble\r\n".utf8)
        var expected: [MultipartParser.Event] = []
        for (index, content) in contents.enumerated() {
            body += part("p\(index)", content)
            expected.append(.part(name: "p\(index)"))
            if !content.isEmpty { expected.append(.content(content)) }
            expected.append(.partEnd)
        }
        body += Array("--xyz--\r\nan epilogue".utf8)
        expected.append(.end)
        #expect(try events(body) == expected)
        #expect(try events(body, pieces: { _ in 1 }) == expected)
        for _ in 0..<50 {
            #expect(try events(body, pieces: { _ in .random(in: 1...200, using: &generator) }) == expected)
        }
    }

    @Test(arguments: [
        "multipart/form-data; boundary=xyz", "Multipart/Form-Data;boundary=\"xyz\"",
        "multipart/form-data; charset=utf-8; BOUNDARY=xyz ; a=b", "multipart/form-data; a=\"b;c\\\"\"; boundary=xyz",
    ])
    func aBoundaryIsFoundInAnyForm(type: String) throws {
        let body = part("a", [1]) + Array("--xyz--".utf8)
        #expect(try events(body, type: type) == [.part(name: "a"), .content([1]), .partEnd, .end])
    }

    @Test(arguments: [
        nil, "application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=x",
        "multipart/form-data; boundary=\"\(String(repeating: "x", count: 257))\"",
        "multipart/form-data; boundary=\u{e9}",
    ])
    func aTypeWithoutABoundaryIsRefused(type: String?) {
        #expect(throws: MultipartParser.Malformed.self) { try MultipartParser(contentType: type) }
    }

    @Test(arguments: [
        String(repeating: "no boundary ", count: 2_000),
        "--xyzzy\r\n",
        "--xyz" + String(repeating: " ", count: 100),
        "--xyz\r\n\r\ncontent\r\n--xyz--",
        "--xyz\r\nContent-Disposition: form-data; nam=\"a\"\r\n\r\n",
        "--xyz\r\n" + String(repeating: "A: b\r\n", count: 5_000),
    ])
    func aMalformedFormIsRefused(body: String) {
        #expect(throws: MultipartParser.Malformed.self) { try events(Array(body.utf8)) }
    }

    @Test func aFormThatIsCutIsNotComplete() throws {
        let body = part("a", [1, 2, 3]) + Array("--xyz--".utf8)
        for length in 0..<body.count {
            var parser = try MultipartParser(contentType: Self.type)
            parser.append(body[..<length])
            while let event = try parser.next() { #expect(event != .end) }
            #expect(!parser.isComplete)
        }
    }

    @Test func anyBytesAreAFormOrRefusedAndNothingIsInvented() {
        var generator = SystemRandomNumberGenerator()
        let whole = part("a", Array("content".utf8)) + part("b", []) + Array("--xyz--".utf8)
        for _ in 0..<fuzzRounds(5_000) {
            var body = whole
            for _ in 0..<Int.random(in: 1...6) {
                let index = Int.random(in: 0..<body.count)
                switch Int.random(in: 0...2) {
                case 0: body[index] = .random(in: 0...255)
                case 1: body.removeSubrange(index..<min(body.count, index + Int.random(in: 1...9)))
                default: body.insert(contentsOf: Array("\r\n--xyz".utf8.prefix(.random(in: 0...7))), at: index)
                }
                if body.isEmpty { break }
            }
            guard let events = try? events(body, pieces: { _ in .random(in: 1...64, using: &generator) }) else {
                continue
            }
            let content = events.reduce(0) { count, event in
                if case .content(let bytes) = event { count + bytes.count } else { count }
            }
            #expect(content <= body.count)
        }
    }
}
