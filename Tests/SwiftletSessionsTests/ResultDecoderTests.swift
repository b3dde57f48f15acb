// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import SwiftletSessions
import SwiftletTestSupport
import Testing

@Suite struct ResultDecoderTests {
    private func record(_ text: String) -> [UInt8] {
        record(Array(text.utf8))
    }

    private func record(_ text: [UInt8]) -> [UInt8] {
        let length = UInt32(text.count)
        return (0..<4).map { UInt8(truncatingIfNeeded: length >> ($0 * 8)) } + text
    }

    private func bundle(_ text: String) -> String {
        #"{"type":"display_data","data":{"text/html":""# + text + #""},"metadata":{}}"#
    }

    private let value = #"{"type":"execute_result","data":{"text/plain":"1"},"metadata":{}}"#

    @Test func bundlesAreFoundHoweverTheirBytesWereCut() {
        let bytes = record(value) + record(bundle("é🎉")) + record(#"{"dropped":3}"#) + record(value)
        for size in [1, 2, 3, 5, 7, 64, bytes.count] {
            var decoder = ResultDecoder()
            var found: [String] = []
            for start in stride(from: 0, to: bytes.count, by: size) {
                found += decoder.append(bytes[start..<min(start + size, bytes.count)])
            }
            decoder.finish()
            #expect(found == [value, bundle("é🎉"), value])
            #expect(decoder.dropped == 3)
        }
    }

    @Test func aBundleIsOneLineInOneOrder() {
        var decoder = ResultDecoder()
        let text = """
            {"metadata" : { } ,\r
             "data":\t{ "application/json" : [ 1.50 , -0 , 1E+2, 12345678901234567890123, {"a" : null} , true, false ] ,
             "application/geo+json":{}, "text/plain" : " \\n \\ud83c\\udf89 \\/ " }, "type":"display_data" }
            """
        let json = "[1.50,-0,1E+2,12345678901234567890123,{\"a\":null},true,false]"
        let data = #"{"application/json":"# + json + #","application/geo+json":{},"text/plain":" \n \ud83c\udf89 \/ "}"#
        #expect(
            decoder.append(record(text)) == [#"{"type":"display_data","data":"# + data + #","metadata":{}}"#]
        )
    }

    @Test(arguments: [
        "", "{", "1", "[]", "{}", "null", "\"", "{\"dropped\":-1}", "{\"dropped\":1.5}", "{\"dropped\":\"1\"}",
        #"{"type":"other","data":{},"metadata":{}}"#, #"{"type":"display_data","data":{}}"#,
        #"{"type":"display_data","data":[],"metadata":{}}"#, #"{"type":"display_data","data":{},"metadata":[]}"#,
        #"{"type":"display_data","data":{"text/html":5},"metadata":{}}"#,
        #"{"type":"display_data","data":{},"metadata":{},"more":1}"#,
        #"{"type":"display_data","type":"display_data","data":{},"metadata":{}}"#,
        #"{"type":"display_data","data":{"a":"1","a":"2"},"metadata":{}}"#,
        #"{"type":"display_data","data":{},"metadata":{}} x"#, #"{"type":"display_data","data":{},"metadata":{},}"#,
        #"{"type":"display_data","data":{"a":"\ud800"},"metadata":{}}"#,
        #"{"type":"display_data","data":{"a":"\udc00\ud800"},"metadata":{}}"#,
        #"{"type":"display_data","data":{"a":"\x"},"metadata":{}}"#,
        #"{"type":"display_data","data":{"a":"\u00g0"},"metadata":{}}"#,
        "{\"type\":\"display_data\",\"data\":{\"a\":\"\n\"},\"metadata\":{}}",
    ])
    func whatIsNoBundleIsCounted(text: String) {
        var decoder = ResultDecoder()
        #expect(decoder.append(record(text)).isEmpty)
        #expect(decoder.dropped == 1)
        #expect(decoder.append(record(value)) == [value])
    }

    @Test(arguments: [
        "NaN", "Infinity", "-", "01", "-01", "1.", ".5", "1e", "+1", "tru", "nul", "[1,]", "[,]", "{1:2}", "[1 2]", "",
    ])
    func whatIsNoJSONIsRefusedInsideToo(text: String) {
        var decoder = ResultDecoder()
        let bundle = #"{"type":"display_data","data":{"application/json":"# + text + #"},"metadata":{}}"#
        #expect(decoder.append(record(bundle)).isEmpty)
        #expect(decoder.dropped == 1)
    }

    @Test func bytesThatAreNoTextAreRefused() {
        var decoder = ResultDecoder()
        var bytes = Array(bundle("x").utf8)
        bytes[bytes.firstIndex(of: UInt8(ascii: "x")) ?? 0] = 0xff
        #expect(decoder.append(record(bytes)).isEmpty)
        #expect(decoder.dropped == 1)
    }

    @Test func nestingIsBounded() {
        var decoder = ResultDecoder()
        for depth in [400, 600, 1_000_000] {
            let json = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
            let text = #"{"type":"display_data","data":{"application/json":"# + json + #"},"metadata":{}}"#
            #expect(decoder.append(record(text)).count == (depth == 400 ? 1 : 0))
        }
        #expect(decoder.dropped == 2)
    }

    @Test func whatIsTooLongIsSkippedAndCounted() {
        var decoder = ResultDecoder()
        let long = bundle(String(repeating: "x", count: ProtocolLimits.maximumResult))
        #expect(decoder.append(record(long) + record(value)) == [value])
        #expect(decoder.append([0xff, 0xff, 0xff, 0xff]).isEmpty)
        #expect(decoder.append([UInt8](repeating: 7, count: 1 << 20)).isEmpty)
        decoder.finish()
        #expect(decoder.dropped == 2)
    }

    @Test func allTogetherAreBoundedInBytesAndInNumber() {
        var decoder = ResultDecoder()
        let large = record(bundle(String(repeating: "x", count: 3 << 20)))
        let kept = (0..<10).reduce(0) { count, _ in count + decoder.append(large).count }
        #expect(kept == 5 && decoder.dropped == 5)
        #expect(decoder.append(record(value)) == [value])

        var other = ResultDecoder()
        let many = (0..<300).reduce(0) { count, _ in count + other.append(record(value)).count }
        #expect(many == ProtocolLimits.maximumResults && other.dropped == 44)
        #expect(other.append(record(#"{"dropped":6}"#)).isEmpty)
        #expect(other.dropped == 50)
    }

    @Test func aGuestCannotCountFurtherThanNumbersGo() {
        var decoder = ResultDecoder()
        for _ in 0..<10 { _ = decoder.append(record(#"{"dropped":9223372036854775807}"#)) }
        #expect(decoder.dropped == 1 << 40)
    }

    @Test(arguments: [1, 3, 20])
    func whatIsCutOffIsCounted(length: Int) {
        var decoder = ResultDecoder()
        #expect(decoder.append(record(value).prefix(length)).isEmpty)
        decoder.finish()
        #expect(decoder.dropped == 1)
    }

    @Test func whateverBytesComeWhatIsYieldedIsJSON() throws {
        var generator = SystemRandomNumberGenerator()
        let pieces = Array(#"{}[]":,\u0123 -+.eE9ntf"#.utf8) + [0xc3, 0xa9, 0xff, 0x00, 0x0a]
        let good = Array((bundle("é\\n") + #"{"a":[1,2.5e3,true,null]}"#).utf8)
        for _ in 0..<fuzzRounds(20_000) {
            var bytes = good
            for _ in 0..<Int.random(in: 0...3, using: &generator) {
                let index = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: bytes.remove(at: index)
                case 1: bytes[index] = pieces.randomElement(using: &generator) ?? 0
                default: bytes.insert(pieces.randomElement(using: &generator) ?? 0, at: index)
                }
            }
            bytes = Array(bytes.prefix(Int.random(in: (good.count - 30)...good.count, using: &generator)))
            var decoder = ResultDecoder()
            for text in decoder.append(record(bytes)) {
                let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
                #expect(object?.count == 3 && !text.contains("\n"))
            }
        }
    }

    @Test func anyStreamOfBytesIsTaken() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<fuzzRounds(2_000) {
            var decoder = ResultDecoder()
            for _ in 0..<Int.random(in: 1...8, using: &generator) {
                let count = Int.random(in: 0...40, using: &generator)
                let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) & 0x0f }
                _ = decoder.append(bytes)
            }
            decoder.finish()
            #expect(decoder.dropped >= 0)
        }
    }
}
