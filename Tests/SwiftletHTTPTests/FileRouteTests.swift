// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import SwiftletCore
import SwiftletSessions
import Synchronization
import Testing

@Suite struct FileRouteTests {
    private static let session = SessionID.random()
    private static let base = "/v1/sessions/\(session)/files"

    private func withServer(
        _ files: FakeFiles = FakeFiles(),
        _ body: @escaping @Sendable (any TestClientProtocol, HTTPFields) async throws -> Void
    ) async throws {
        try await TestServer.with(files: files) { client, key in
            try await body(client, [.authorization: "Bearer \(key)"])
        }
    }

    @Test func refusalsOfFilesHaveTheirStatus() async throws {
        let cases: [(FileError.Code, Int)] = [
            (.notFound, 404), (.notADirectory, 404), (.notRegular, 409), (.noSpace, 507), (.notPermitted, 403),
            (.nameTooLong, 400), (.exists, 409), (.notEmpty, 409), (.tooLarge, 413), (.busy, 409), (.tooManyLinks, 400),
            (.vmLost, 503), (.other, 409),
        ]
        for (code, status) in cases {
            try await withServer(FakeFiles(failure: FileError(code, "words"))) { client, headers in
                for method in [HTTPRequest.Method.get, .put, .delete, .head] {
                    let reply = try await client.execute(uri: Self.base + "/a", method: method, headers: headers)
                    #expect(reply.status.code == status, "\(code) \(method)")
                }
            }
        }
    }

    @Test func aContentRangeSaysWhereItGoes() async throws {
        let files = FakeFiles()
        try await withServer(files) { client, headers in
            var headers = headers
            headers[.contentRange] = "bytes 5-9/20"
            let body = ByteBuffer(string: "56789")
            let reply = try await client.execute(uri: Self.base + "/a", method: .put, headers: headers, body: body)
            #expect(reply.status == .created)
            let options = files.options.withLock { $0 }
            #expect(options?.resumeAt == 5)
            #expect(options?.size == 20)
            #expect(files.finished.withLock { $0 } == Array("56789".utf8))
        }
    }

    @Test func namesLongerThanAnyAreRefused() async throws {
        try await withServer { client, headers in
            for (count, status) in [(255, HTTPResponse.Status.ok), (256, .unprocessableContent)] {
                let uri = Self.base + "/a/?after=" + String(repeating: "x", count: count)
                let reply = try await client.execute(uri: uri, method: .get, headers: headers)
                #expect(reply.status == status)
            }
            // Its partial file would have a longer path than there can be, and is not asked for.
            let levels = String(repeating: "/" + String(repeating: "x", count: 254), count: 16)
            let reply = try await client.execute(uri: Self.base + levels + "/y", method: .head, headers: headers)
            #expect(reply.status == .ok)
        }
    }

    @Test func aNameThatIsNoTextIsShownWithoutLoss() async throws {
        try await withServer { client, headers in
            let reply = try await client.execute(uri: Self.base + "/d/", method: .get, headers: headers)
            let data = Data(reply.body.readableBytesView)
            let object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
            let entry = try #require((object["entries"] as? [[String: Any]])?.first)
            #expect(entry["name_base64"] as? String == "/w==")
            #expect(entry["href"] as? String == Self.base + "/d/%FF")
            #expect(object["next"] as? String == "%FF")
        }
    }

    @Test func aDownloadIsJSONOfTheAnnouncedLength() async throws {
        for content in [[], [1], [1, 2], [1, 2, 3], [UInt8](repeating: 7, count: 100)] as [[UInt8]] {
            try await withServer(FakeFiles(content: content)) { client, headers in
                var headers = headers
                headers[.contentType] = "application/x-www-form-urlencoded"
                let body = ByteBuffer(string: "filename=a&session_id=\(Self.session)")
                let reply = try await client.execute(uri: "/download", method: .post, headers: headers, body: body)
                #expect(reply.headers[.contentLength] == String(reply.body.readableBytes))
                let data = Data(reply.body.readableBytesView)
                let object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
                let text = try #require(object["content"] as? String)
                #expect(text == (content.isEmpty ? "\n" : Data(content).base64EncodedString()))
            }
        }
    }

    @Test func randomRequestsNeverBreakTheServer() async throws {
        try await withServer(FakeFiles(content: [1, 2, 3])) { client, headers in
            let pieces = ["/", "//", "%2e%2e", "..", "%00", "%", "%zz", "a", "%2F", "%ff", ".partial", "é"]
            let queries = [
                "", "recursive=true", "recursive=2", "mode=0", "mode=99", "offset=1", "offset=-1&size=x", "limit=0",
                "after=%",
                "directory=1", "size=99999999999999999999",
            ]
            let ranges = ["bytes=0-", "bytes=9-", "bytes=-1", "x", "bytes 0-0/1", "bytes 0-1/1"]
            for _ in 0..<1_000 {
                let path = "/" + (0..<Int.random(in: 0...4)).map { _ in pieces.randomElement() ?? "" }.joined()
                let query = (0..<Int.random(in: 0...2)).map { _ in queries.randomElement() ?? "" }.joined(
                    separator: "&"
                )
                var headers = headers
                headers[.range] = ranges.randomElement()
                if Bool.random() { headers[.contentRange] = ranges.randomElement() }
                let method = [HTTPRequest.Method.get, .put, .delete, .head].randomElement() ?? .get
                let uri = "\(Self.base)\(path)?\(query)"
                let body = ByteBuffer(string: String(repeating: "x", count: .random(in: 0...3)))
                let reply = try await client.execute(uri: uri, method: method, headers: headers, body: body)
                #expect(reply.status.code < 500, "\(method) \(uri)")
            }
        }
    }
}
