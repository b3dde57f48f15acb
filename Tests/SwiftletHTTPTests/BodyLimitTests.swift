// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import Testing

@Suite struct BodyLimitTests {
    @Test func problemsAreToldUpToANumber() async throws {
        try await TestServer.with { client, key in
            let values = String(repeating: "0,", count: 50_000) + "0"
            let response = try await client.execute(
                uri: "/execute",
                method: .post,
                headers: [.authorization: "Bearer \(key)"],
                body: ByteBuffer(string: #"{"command":"1","vault_ids":[\#(values)]}"#)
            )
            #expect(response.status == .unprocessableContent)
            #expect((try response.object["detail"] as? [Any])?.count == 100)
        }
    }

    @Test func aBodyIsReadUpToOneMegabyteBeforeAuthentication() async throws {
        try await TestServer.with(maximumBody: 4 << 20) { client, key in
            let large = String(repeating: "x", count: 2 << 20)
            let body = ByteBuffer(string: #"{"command":"\#(large)","api_key":"\#(key)"}"#)
            for path in ["/execute", "/execute_async", "/kill", "/v1/sessions/session"] {
                let anonymous = try await client.execute(uri: path, method: .post, body: body)
                #expect(anonymous.status == .contentTooLarge)
                #expect(anonymous.text.contains("X-API-Key"))
                let headers: HTTPFields = [.authorization: "Bearer wrong"]
                let refused = try await client.execute(uri: path, method: .post, headers: headers, body: body)
                #expect(refused.status == .unauthorized)
            }
            let headers: HTTPFields = [.authorization: "Bearer \(key)"]
            let taken = try await client.execute(uri: "/execute", method: .post, headers: headers, body: body)
            #expect(taken.status == .ok)
        }
    }
}
