// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import SwiftletJSON
import SwiftletTestSupport
import Testing

@Suite struct JSONParserTests {
    private func parsed(_ text: String) -> JSONValue? {
        // Invalid JSON gives nil here.
        try? JSONValue(parsing: ByteBuffer(string: text))
    }

    private static let texts: [(String, JSONValue)] = [
        ("null", .null), (" true ", .bool(true)), ("false", .bool(false)), ("0", .integer(0)),
        ("-0", .integer(0)), ("-12", .integer(-12)), ("1.5e2", .integer(150)), ("30.0", .integer(30)),
        ("0.5", .number(0.5)),
        ("99999999999999999999", .number(1e20)), ("\"\"", .string("")),
        (#""a\"\\\/\b\f\n\r\t""#, .string("a\"\\/\u{8}\u{c}\n\r\t")),
        (#""\u00e9\ud83d\ude00\u0000""#, .string("é😀\0")),
        ("\"é😀\"", .string("é😀")), ("[]", .array([])), ("[1 , 2]", .array([.integer(1), .integer(2)])),
        ("{}", .object([])),
        (#"{"a":{"b":[null]},"":1}"#, ["a": ["b": [.null]], "": .integer(1)]),
    ]

    @Test(arguments: texts)
    func validTextsAreRead(text: String, value: JSONValue) {
        #expect(parsed(text) == value)
    }

    @Test(arguments: [
        "", " ", "nul", "nulll", "tru", "01", "-", "+1", ".5", "1.", "1e", "1e+", "0x1", "1e999", "NaN", "Infinity",
        "\"", "\"\n\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "'a'", "[", "[1,",
        "[1,]", "[,1]", "[1 2]", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "{\"a\" 1}", "{1:1}",
        "1 2", "{}x", "\u{feff}{}",
    ])
    func invalidTextsAreRefused(text: String) {
        #expect(parsed(text) == nil)
    }

    @Test func bytesThatAreNoUTF8AreRefused() {
        for bytes: [UInt8] in [[0x22, 0xff, 0x22], [0x22, 0xc3, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22], [0xff]] {
            #expect(throws: (any Error).self) { try JSONValue(parsing: ByteBuffer(bytes: bytes)) }
        }
    }

    @Test(arguments: ["1e999", "-1e999", "[0, 1e309]", String(repeating: "9", count: 400)])
    func aNumberThatNoDoubleHoldsIsOutOfRange(text: String) {
        let error = #expect(throws: JSONParser.Failure.self) { try JSONValue(parsing: ByteBuffer(string: text)) }
        #expect(error == .numberOutOfRange)
    }

    @Test func depthAndNumberAreBounded() {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(parsed(nested(128)) != nil)
        #expect(parsed(nested(129)) == nil)
        #expect(parsed(String(repeating: "[", count: 10_000_000)) == nil)
        func many(_ count: Int) -> String { "[" + String(repeating: "0,", count: count - 1) + "0]" }
        #expect(parsed(many(99_999)) != nil)
        #expect(parsed(many(100_000)) == nil)
    }

    @Test func writtenValuesAreReadBack() {
        var generator = SeededGenerator(seed: 1)
        let atoms: [JSONValue] = [
            .null, .bool(true), .integer(.min), .integer(.max), .number(0.1), .string("\u{0}\u{1f}\"\\é😀\u{2028}"),
        ]
        func random(_ depth: Int) -> JSONValue {
            switch depth > 3 ? 0 : Int.random(in: 0...2, using: &generator) {
            case 1: .array((0..<Int.random(in: 0...4, using: &generator)).map { _ in random(depth + 1) })
            case 2:
                .object(
                    (0..<Int.random(in: 0...4, using: &generator)).map {
                        .init(name: "\($0)\n", value: random(depth + 1))
                    }
                )
            default: atoms.randomElement(using: &generator) ?? .null
            }
        }
        for _ in 0..<500 {
            let value = random(0)
            #expect(parsed(value.text) == value)
        }
    }

    @Test func randomBytesNeverTrap() {
        let alphabet = Array(#"{}[]",:\u0123456789abcdefE+-. truefalsn"#.utf8) + [0x00, 0xff, 0xc3, 0xa9]
        var generator = SeededGenerator(seed: 1)
        for _ in 0..<fuzzRounds(20_000) {
            let count = Int.random(in: 0...24, using: &generator)
            let bytes = (0..<count).compactMap { _ in alphabet.randomElement(using: &generator) }
            _ = try? JSONValue(parsing: ByteBuffer(bytes: bytes))
        }
    }

    /// A few times what honest bodies take; the same text once cost minutes.
    @Test func aLargeBodyOfSmallValuesCostsLittle() {
        let body = "{\"a\":[" + String(repeating: "0,", count: 16_000_000) + "0]}"
        let begun = ContinuousClock.now
        #expect(parsed(body) == nil)
        #expect(ContinuousClock.now - begun < .seconds(5))
    }
}
