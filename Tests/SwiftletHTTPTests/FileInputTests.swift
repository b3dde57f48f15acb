// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import SwiftletHTTP
import Testing

@Suite struct FileInputTests {
    @Test(arguments: [
        (nil, 10, ByteRange.whole), ("bytes=0-9", 10, .part(0..<10)), ("bytes=9-", 10, .part(9..<10)),
        ("bytes=-1", 10, .part(9..<10)), ("bytes=-99", 10, .part(0..<10)), ("bytes=3-99", 10, .part(3..<10)),
        ("bytes=10-", 10, .unsatisfiable), ("bytes=-0", 10, .unsatisfiable), ("bytes=0-", 0, .unsatisfiable),
        ("bytes=-1", 0, .unsatisfiable), ("bytes=5-4", 10, .whole), ("bytes=-", 10, .whole), ("bytes=", 10, .whole),
        ("bytes=1-2,4-5", 10, .whole), ("bytes=+1-2", 10, .whole), ("bytes=1--2", 10, .whole),
        ("items=0-1", 10, .whole),
        ("bytes=0-99999999999999999999999", 10, .part(0..<10)), ("bytes=99999999999999999999999-", 10, .unsatisfiable),
    ])
    func aRangeIsUnderstoodOrIgnored(header: String?, size: Int, expected: ByteRange) {
        #expect(ByteRange(header, size: size) == expected)
    }

    @Test func aContentRangeIsWholeNumbersThatFit() {
        let range = ContentRange("bytes 5-9/10")
        #expect(range?.range == 5..<10)
        #expect(range?.size == 10)
        for header in [
            "", "bytes", "bytes 5-9", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "bytes -1-5/10",
            "bytes 0-\(Int.max)/\(Int.max)0", "items 0-1/2",
        ] {
            #expect(ContentRange(header) == nil, "\(header)")
        }
    }

    @Test func anyBytesSurviveAURL() {
        let all = (0...255).map { UInt8($0) }
        #expect(PercentCoding.decode(PercentCoding.encode(all).utf8) == all)
        for text in ["%", "%4", "%4x", "a%", "%%41"] { #expect(PercentCoding.decode(text.utf8) == nil) }
        #expect(PercentCoding.decode("a+b%20".utf8, plusIsSpace: true) == Array("a b ".utf8))
        #expect(PercentCoding.decode("a+b".utf8) == Array("a+b".utf8))
    }

    @Test(arguments: 0...20)
    func base64InPiecesIsBase64(count: Int) {
        let bytes = (0..<count).map { _ in UInt8.random(in: 0...255) }
        for size in 1...7 {
            var encoder = Base64Stream()
            var text = ""
            for start in stride(from: 0, to: count, by: size) {
                text += String(buffer: encoder.encode(bytes[start..<min(start + size, count)]))
            }
            text += String(buffer: encoder.finish())
            #expect(text == Data(bytes).base64EncodedString())
        }
    }
}
