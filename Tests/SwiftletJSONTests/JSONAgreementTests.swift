// SPDX-License-Identifier: Apache-2.0

import NIOCore
import SwiftletJSON
import SwiftletTestSupport
import Testing

/// The parser, the minifier and the escaper take the same texts for valid, and read the same of them.
@Suite struct JSONAgreementTests {
    /// Makes JSON texts with the white space, escapes and numbers that the grammar allows, and breaks them.
    private struct Texts {
        private static let space = ["", "", "", " ", "\n", "\t\r\n "]
        private static let atoms = [
            "null", "true", "false", "0", "-0", "12", "-3.25", "1e5", "2E-3", "0.1e+1", "123456789012345678901234",
            "1e999", #""""#, #""a""#, #""é😀""#, #""\"\\\/\b\f\n\r\t""#, #""\u00e9\ud83d\ude00\u0000""#,
            #""\uD800\uDC00""#,
        ]
        private static let pieces: [[UInt8]] =
            [
                "{", "}", "[", "]", "\"", ",", ":", "\\", "\\u", "\\ud800", "\\udc00", "\\u0041", "0", "-", ".", "e",
                "t",
                "null", " ", "\u{0}", "\u{1f}", "\u{7f}", "é", "\u{feff}", "\u{2028}", "1e999",
            ].map { Array($0.utf8) } + [
                [0xff], [0xc3], [0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xc0, 0x80],
            ]

        var generator = SeededGenerator(seed: 11)

        private mutating func element<T>(of array: [T]) -> T {
            array[Int.random(in: 0..<array.count, using: &generator)]
        }

        private mutating func space() -> String { element(of: Self.space) }

        private mutating func value(_ depth: Int) -> String {
            let kind = depth > 4 ? 0 : Int.random(in: 0...3, using: &generator)
            let count = Int.random(in: 0...3, using: &generator)
            let text =
                switch kind {
                case 1: "[" + (0..<count).map { _ in value(depth + 1) }.joined(separator: ",") + space() + "]"
                case 2: object(count, depth)
                default: element(of: Self.atoms)
                }
            return space() + text + space()
        }

        private mutating func object(_ count: Int, _ depth: Int) -> String {
            let fields = (0..<count).map { index in
                space() + (index == 0 ? #""\u0061""# : #""a\#(index)""#) + space() + ":" + value(depth + 1)
            }
            return "{" + fields.joined(separator: ",") + space() + "}"
        }

        /// An object.
        mutating func valid() -> [UInt8] {
            let count = Int.random(in: 0...4, using: &generator)
            return Array((space() + object(count, 0) + space()).utf8)
        }

        /// An object, mostly broken in up to three places.
        mutating func mutated() -> [UInt8] {
            var bytes = valid()
            for _ in 0..<Int.random(in: 0...3, using: &generator) {
                let index = Int.random(in: 0...bytes.count, using: &generator)
                let end = min(bytes.count, index + Int.random(in: 0...3, using: &generator))
                switch Int.random(in: 0...3, using: &generator) {
                case 0: bytes.removeSubrange(index..<end)
                case 1: bytes.insert(contentsOf: element(of: Self.pieces), at: index)
                case 2: bytes.replaceSubrange(index..<end, with: element(of: Self.pieces))
                default: bytes.replaceSubrange(index..<end, with: [UInt8.random(in: 0...255, using: &generator)])
                }
            }
            return bytes
        }
    }

    private func parse(_ bytes: [UInt8]) -> Result<JSONValue, JSONParser.Failure> {
        do throws(JSONParser.Failure) {
            return .success(try JSONValue(parsing: ByteBuffer(bytes: bytes)))
        } catch {
            return .failure(error)
        }
    }

    /// Checks a text; returns whether it is valid, nil when only the parser refuses it, for a number that it cannot hold.
    private func isValid(_ bytes: [UInt8]) -> Bool? {
        let minified = JSONMinifier.fields(of: bytes)
        let shown = String(decoding: bytes, as: UTF8.self)
        switch parse(bytes) {
        case .success(.object(let fields)) where Set(fields.map(\.name)).count == fields.count:
            #expect(minified?.map(\.name) == fields.map(\.name), "\(shown)")
            for (field, copy) in zip(fields, minified ?? []) {
                #expect(parse(copy.value) == .success(field.value), "\(shown)")
                #expect(!copy.value.contains(UInt8(ascii: "\n")), "\(shown)")
            }
            return true
        case .success:
            // No object, or a name twice: valid JSON, and none that the minifier takes.
            #expect(minified == nil, "\(shown)")
            return true
        case .failure(.numberOutOfRange):
            return nil
        case .failure(let failure):
            #expect(failure == .malformed, "\(shown)")
            #expect(minified == nil, "\(shown)")
            return false
        }
    }

    @Test func validTextsAreValidForAll() {
        var texts = Texts()
        for _ in 0..<fuzzRounds(5_000) {
            let text = texts.valid()
            #expect(JSONMinifier.fields(of: text) != nil)
            #expect(isValid(text) != false, "\(String(decoding: text, as: UTF8.self))")
        }
    }

    @Test func brokenTextsAreValidForAllOrForNone() {
        var texts = Texts()
        var valid = 0
        var invalid = 0
        let rounds = fuzzRounds(50_000)
        for _ in 0..<rounds {
            switch isValid(texts.mutated()) {
            case true?: valid += 1
            case false?: invalid += 1
            case nil: break
            }
        }
        // Both decisions were made often.
        #expect(valid > rounds / 10 && invalid > rounds / 4, "\(valid) valid, \(invalid) invalid of \(rounds)")
    }

    @Test func randomBytesAreValidForAllOrForNone() {
        var generator = SeededGenerator(seed: 12)
        let alphabet = Array(#"{}{}[]"",:\u0123456789abcdefE+-. truefalsn"#.utf8) + [0x00, 0xff, 0xc3, 0xa9]
        for _ in 0..<fuzzRounds(50_000) {
            let count = Int.random(in: 0...20, using: &generator)
            _ = isValid(Array("{".utf8) + (0..<count).compactMap { _ in alphabet.randomElement(using: &generator) })
        }
    }

    @Test func whatTheEscaperWritesIsValidAndReadBack() {
        var generator = SeededGenerator(seed: 13)
        for _ in 0..<fuzzRounds(5_000) {
            let bytes = (0..<Int.random(in: 0...40, using: &generator)).map { _ in
                Bool.random(using: &generator)
                    ? UInt8.random(in: 0x80...0xff, using: &generator) : UInt8.random(in: 0...0x7f, using: &generator)
            }
            var buffer = ByteBuffer(string: "{\"a\":\"")
            var escaper = JSONStringEscaper()
            escaper.escape(bytes, into: &buffer)
            escaper.finish(into: &buffer)
            buffer.writeString("\"}")
            let text = String(decoding: bytes, as: UTF8.self)
            #expect(parse(Array(buffer.readableBytesView)) == .success(["a": .string(text)]))
            #expect(JSONMinifier.fields(of: Array(buffer.readableBytesView)) != nil)
        }
    }

    @Test func namesAreComparedByTheirText() {
        #expect(JSONMinifier.fields(of: Array(#"{"a":1,"\u0061":2}"#.utf8)) == nil)
        #expect(JSONMinifier.fields(of: Array(#"{"\u0061":1}"#.utf8))?.first?.name == "a")
    }

    @Test(arguments: [(500, true), (501, false), (1_000_000, false)])
    func theMinifierBoundsTheDepth(depth: Int, isAllowed: Bool) {
        let nested = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        #expect((JSONMinifier.fields(of: Array("{\"a\":\(nested)}".utf8)) != nil) == isAllowed)
    }
}
