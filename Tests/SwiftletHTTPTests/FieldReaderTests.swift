// SPDX-License-Identifier: Apache-2.0

import NIOCore
import SwiftletHTTP
import SwiftletJSON
import SwiftletTestSupport
import Testing

@Suite struct FieldReaderTests {
    enum Encoding: CaseIterable {
        case query, form, multipart

        var place: String { self == .query ? "query" : "body" }

        /// A reader of these fields in this encoding.
        func reader(_ fields: [(name: String, value: [UInt8])]) throws -> FieldReader {
            switch self {
            case .query: FieldReader(query: Self.urlEncoded(fields))
            case .form: FieldReader(form: ByteBuffer(string: Self.urlEncoded(fields)))
            case .multipart: try Self.multipart(fields)
            }
        }

        private static func urlEncoded(_ fields: [(name: String, value: [UInt8])]) -> String {
            fields.map { PercentCoding.encode($0.name.utf8) + "=" + PercentCoding.encode($0.value) }
                .joined(separator: "&")
        }

        private static func multipart(_ fields: [(name: String, value: [UInt8])]) throws -> FieldReader {
            var form = try MultipartForm(contentType: "multipart/form-data; boundary=xyz")
            for field in fields {
                form.append("--xyz\r\nContent-Disposition: form-data; name=\"\(field.name)\"\r\n\r\n".utf8)
                form.append(field.value + Array("\r\n".utf8))
            }
            form.append("--xyz--".utf8)
            #expect(try form.next() == nil)
            #expect(form.isComplete)
            return form.fields
        }
    }

    /// One way to read the field `a`; the outcome is its description.
    enum Reading {
        case bytes, string, requiredBytes, requiredString, nonEmptyBytes, nonEmptyString, integer, flag, parsed

        func outcome(_ reader: inout FieldReader) -> String {
            switch self {
            case .bytes: reader.bytes("a").map(String.init(describing:)) ?? "nil"
            case .string: reader.string("a") ?? "nil"
            case .requiredBytes: String(describing: reader.requiredBytes("a"))
            case .requiredString: reader.requiredString("a")
            case .nonEmptyBytes: String(describing: reader.requiredBytes("a", allowsEmpty: false))
            case .nonEmptyString: reader.requiredString("a", allowsEmpty: false)
            case .integer: reader.integer("a", in: 1...100).map(String.init) ?? "nil"
            case .flag: String(reader.flag("a"))
            case .parsed: reader.parsed("a", "one letter") { $0.count == 1 ? $0.first : nil }.map { "\($0)" } ?? "nil"
            }
        }
    }

    struct Case: Sendable {
        var values: [[UInt8]]
        var reading: Reading
        var outcome: String
        /// The type of the one problem; nil when there is none.
        var problem: String?

        init(_ values: [String], _ reading: Reading, _ outcome: String, _ problem: String? = nil) {
            self.init(bytes: values.map { Array($0.utf8) }, reading, outcome, problem)
        }

        init(bytes values: [[UInt8]], _ reading: Reading, _ outcome: String, _ problem: String? = nil) {
            (self.values, self.reading, self.outcome, self.problem) = (values, reading, outcome, problem)
        }
    }

    private static let cases: [Case] = [
        // Text, whatever has a meaning in an encoding.
        Case(["x"], .string, "x"), Case(["a=b&c+d %41;\"é😀\r\n"], .string, "a=b&c+d %41;\"é😀\r\n"),
        Case([" x "], .string, " x "),
        // Of several values the last counts, even if it is empty or wrong.
        Case(["1", "2"], .string, "2"), Case(["1", ""], .string, ""), Case(["1", "x"], .integer, "nil", "int_parsing"),
        Case(["x", "7"], .integer, "7"), Case(bytes: [[0xff], [0x78]], .string, "x"),
        // No field.
        Case([], .bytes, "nil"), Case([], .string, "nil"), Case([], .integer, "nil"), Case([], .flag, "false"),
        Case([], .parsed, "nil"), Case([], .requiredString, "", "missing"), Case([], .requiredBytes, "[]", "missing"),
        // An empty value.
        Case([""], .bytes, "[]"), Case([""], .string, ""), Case([""], .integer, "nil", "int_parsing"),
        Case([""], .flag, "false", "bool_parsing"), Case([""], .parsed, "nil", "value_error"),
        Case([""], .requiredString, ""), Case([""], .requiredBytes, "[]"),
        Case([""], .nonEmptyString, "", "missing"), Case([""], .nonEmptyBytes, "[]", "missing"),
        Case(["x", ""], .nonEmptyString, "", "missing"), Case(["", "x"], .nonEmptyString, "x"),
        // No UTF-8.
        Case(bytes: [[0xff, 0x61]], .bytes, "[255, 97]"), Case(bytes: [[0xff]], .requiredBytes, "[255]"),
        Case(bytes: [[0xff]], .string, "nil", "string_unicode"),
        Case(bytes: [[0xed, 0xa0, 0x80]], .string, "nil", "string_unicode"),
        Case(bytes: [[0xc3]], .requiredString, "", "string_unicode"),
        Case(bytes: [[0x31, 0xff]], .integer, "nil", "string_unicode"),
        Case(bytes: [[0xff]], .flag, "false", "string_unicode"),
        // NUL.
        Case(bytes: [[0x61, 0]], .bytes, "[97, 0]"), Case(["x\0y"], .string, "nil", "value_error"),
        Case(["\0"], .requiredString, "", "value_error"), Case(["1\0"], .integer, "nil", "value_error"),
        // Numbers.
        Case(["1"], .integer, "1"), Case(["100"], .integer, "100"), Case([" 42\t"], .integer, "42"),
        Case(["+5"], .integer, "5"), Case(["0"], .integer, "nil", "greater_than_equal"),
        Case(["101"], .integer, "nil", "less_than_equal"), Case(["-1"], .integer, "nil", "greater_than_equal"),
        Case(["1.0"], .integer, "nil", "int_parsing"), Case(["0x10"], .integer, "nil", "int_parsing"),
        Case(["99999999999999999999"], .integer, "nil", "int_parsing"),
        // Flags.
        Case(["true"], .flag, "true"), Case(["1"], .flag, "true"), Case(["YES"], .flag, "true"),
        Case(["on"], .flag, "true"), Case(["False"], .flag, "false"), Case(["0"], .flag, "false"),
        Case(["off"], .flag, "false"), Case(["2"], .flag, "false", "bool_parsing"),
        Case([" true"], .flag, "false", "bool_parsing"),
        // Other types.
        Case(["x"], .parsed, "x"), Case(["xy"], .parsed, "nil", "value_error"),
    ]

    @Test(arguments: cases, Encoding.allCases)
    func allEncodingsHaveTheSameRules(test: Case, encoding: Encoding) throws {
        // The fields before and after it are not read.
        let fields = [("b", Array("b".utf8))] + test.values.map { ("a", $0) } + [("c", [0xff, 0])]
        var reader = try encoding.reader(fields)
        #expect(test.reading.outcome(&reader) == test.outcome)
        #expect(reader.problems.map(\.type) == (test.problem.map { [$0] } ?? []))
        for problem in reader.problems { #expect(problem.location == [.string(encoding.place), "a"]) }
        if test.problem == nil {
            try reader.finish()
        } else {
            #expect(throws: ValidationFailure.self) { try reader.finish() }
        }
    }

    @Test(arguments: Encoding.allCases)
    func problemsAreReportedOnceAndInTheOrderOfReading(encoding: Encoding) throws {
        var reader = try encoding.reader([("a", Array("x".utf8)), ("b", [0xff]), ("d", Array("101".utf8))])
        _ = reader.string("b")
        _ = reader.integer("a", in: 1...100)
        _ = reader.string("b")
        _ = reader.requiredString("c", orReport: "Field required, before the file")
        _ = reader.integer("d", in: 1...100)
        #expect(reader.problems.map { $0.location.last } == ["b", "a", "c", "d"])
        #expect(reader.problems.map(\.input) == [nil, "x", nil, "101"])
        #expect(reader.problems[2].message == "Field required, before the file")
        #expect(throws: ValidationFailure.self) { try reader.finish() }
    }

    @Test(arguments: Encoding.allCases)
    func randomFieldsAreReadAsTheyWereWritten(encoding: Encoding) throws {
        var generator = SeededGenerator(seed: 7)
        let names = ["a", "b", "file name", "é", "x+y", "%41"]
        for _ in 0..<fuzzRounds(1_000) {
            let fields = (0..<Int.random(in: 0...8, using: &generator)).map { _ in
                (
                    name: names.randomElement(using: &generator) ?? "a",
                    value: (0..<Int.random(in: 0...20, using: &generator)).map { _ in
                        UInt8.random(in: 0...255, using: &generator)
                    }
                )
            }
            var reader = try encoding.reader(fields)
            for name in names { #expect(reader.bytes(name) == fields.last { $0.name == name }?.value) }
            #expect(reader.problems.isEmpty)
        }
    }

    // MARK: URL-encoded

    private static let texts: [(String, String?, String?)] = [
        ("a=1&b=2", "1", nil), ("a", "", nil), ("&&a=1&&", "1", nil), ("=x&a=1", "1", nil), ("a=x=y", "x=y", nil),
        ("a=+%2B%20", " + ", nil), ("%61=1", "1", nil), ("a=%C3%a9", "é", nil), ("", nil, nil), ("a=1#b", "1#b", nil),
        ("a=%", nil, "value_error"), ("a=%4", nil, "value_error"), ("a=%zz", nil, "value_error"),
        ("a=%+1", nil, "value_error"), ("a=100%&a=1", "1", nil), ("a=1&a=100%", nil, "value_error"),
        // What is not read may be anything.
        ("b=%&a=1", "1", nil), ("%=2&a=1", "1", nil), ("%ff=2&a=1", "1", nil), ("b=%00%ff&a=1", "1", nil),
    ]

    @Test(arguments: texts)
    func aURLEncodedFieldIsReadOrRefused(text: String, value: String?, problem: String?) {
        for reader in [FieldReader(query: text), FieldReader(form: ByteBuffer(string: text))] {
            var reader = reader
            #expect(reader.string("a") == value)
            #expect(reader.problems.map(\.type) == (problem.map { [$0] } ?? []))
        }
    }

    @Test func aMalformedRequiredFieldIsNotMissing() {
        var reader = FieldReader(query: "a=%")
        #expect(reader.requiredString("a") == "")
        #expect(reader.problems.map(\.type) == ["value_error"])
    }

    // MARK: Multipart

    @Test func aFileIsApartFromTheFields() throws {
        var form = try MultipartForm(contentType: "multipart/form-data; boundary=xyz")
        func part(_ name: String, _ content: String) -> [UInt8] {
            Array("--xyz\r\nContent-Disposition: form-data; name=\"\(name)\"\r\n\r\n\(content)\r\n".utf8)
        }
        form.append(part("a", "before") + part("file", "content") + part("b", "behind"))
        #expect(try form.next() == .fileStart)
        var fields = form.fields
        #expect(fields.string("a") == "before" && fields.string("b") == nil && fields.string("file") == nil)
        #expect(try form.next() == .fileContent(Array("content".utf8)))
        #expect(try form.next() == nil)
        fields = form.fields
        #expect(fields.string("file") == nil)
        #expect(!form.isComplete)
        form.append("--xyz--".utf8)
        #expect(try form.next() == nil)
        #expect(form.isComplete)
        fields = form.fields
        #expect(fields.string("b") == "behind")
    }

    @Test func fieldsOfAFormAreBoundedInSizeAndNumber() throws {
        func read(_ parts: Int, of size: Int) throws {
            var form = try MultipartForm(contentType: "multipart/form-data; boundary=xyz")
            for _ in 0..<parts {
                form.append("--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n".utf8)
                form.append([UInt8](repeating: 0x78, count: size) + Array("\r\n".utf8))
                _ = try form.next()
            }
            form.append("--xyz--".utf8)
            _ = try form.next()
        }
        try read(32, of: 1)
        try read(1, of: 16 * 1024)
        #expect(throws: MultipartParser.Malformed.self) { try read(33, of: 1) }
        #expect(throws: MultipartParser.Malformed.self) { try read(1, of: 16 * 1024 + 1) }
    }
}
