// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import HTTPTypes
import HummingbirdTesting
import SwiftletAccounts
import SwiftletCore
import SwiftletStore
import Testing

@Suite struct CommandLineLoginTests {
    private let verifier = String(repeating: "v", count: 86)
    private let form = "email=a%40example.org&password=correct+horse"

    private func startBody(_ changes: [String: Any] = [:]) throws -> String {
        var body: [String: Any] = [
            "state": "st&te=1", "code_challenge": Data(SHA256.hash(data: Data(verifier.utf8))).base64URL,
            "code_challenge_method": "S256", "redirect_uri": "http://127.0.0.1:4711/callback", "cli_version": "0.26.1",
            "hostname": "lap<b>top\u{202e}",
        ]
        body.merge(changes) { $1 }
        return String(decoding: try JSONSerialization.data(withJSONObject: body), as: UTF8.self)
    }

    private func start(_ server: AccountServer) async throws -> (id: String, path: String) {
        let reply = try await server.send(.post, "/api/cli-auth/start", body: try startBody()).object
        let url = try #require(reply["login_url"] as? String)
        #expect(url.hasPrefix("http://localhost/api/cli-auth/"))
        return (try #require(reply["pairing_id"] as? String), url.replacing("http://localhost", with: ""))
    }

    private func exchange(_ server: AccountServer, _ id: String, code: String, verifier: String? = nil) async throws
        -> TestResponse
    {
        let body = ["pairing_id": id, "code": code, "code_verifier": verifier ?? self.verifier]
        let text = String(decoding: try JSONSerialization.data(withJSONObject: body), as: UTF8.self)
        return try await server.send(.post, "/api/cli-auth/exchange", body: text)
    }

    /// Logs in, and returns the code that the browser is sent away with.
    private func logIn(_ server: AccountServer, _ path: String) async throws -> String {
        let response = try await server.send(.post, path, body: form)
        #expect(response.status == .seeOther)
        let location = try #require(response.headers[.location])
        let prefix = "http://127.0.0.1:4711/callback?state=st%26te%3D1&code="
        #expect(location.hasPrefix(prefix))
        return String(location.dropFirst(prefix.count))
    }

    @Test func aLogInEndsWithAKeyThatIsNamedAfterTheDevice() async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            let (id, path) = try await start(server)
            let page = try await server.send(.get, path)
            #expect(page.status == .ok)
            #expect(page.text.contains("lap&lt;b&gt;top?"))
            #expect(page.text.contains("<form method=\"post\">"))
            let code = try await logIn(server, path)
            let reply = try await exchange(server, id, code: code).object
            #expect((reply["user"] as? [String: Any])?["email"] as? String == "a@example.org")
            let key = try #require(reply["api_key"] as? String)
            let keys = try await server.send(.get, "/v1/api-keys/", key: key).array
            #expect(keys.contains { $0["description"] as? String == "CLI - lap<b>top?" })
            // One log-in, one code, one exchange.
            #expect(try await exchange(server, id, code: code).status == .badRequest)
            #expect(try await server.send(.get, path).status == .notFound)
            #expect(try await server.send(.post, path, body: form).status == .notFound)
        }
    }

    @Test func aWrongVerifierGetsNoKeyAndUsesTheCodeUp() async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            let (id, path) = try await start(server)
            let code = try await logIn(server, path)
            let wrong = try await exchange(server, id, code: code, verifier: String(repeating: "w", count: 86))
            #expect(wrong.status == .badRequest)
            #expect(try wrong.object["detail"] is String)
            #expect(try await exchange(server, id, code: code).status == .badRequest)
        }
    }

    @Test func aCodeOfAnotherPairingIsRefused() async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            let (one, two) = (try await start(server), try await start(server))
            let code = try await logIn(server, one.path)
            #expect(try await exchange(server, two.id, code: code).status == .badRequest)
            #expect(try await exchange(server, one.id, code: code).status == .ok)
        }
    }

    @Test func aWrongPasswordShowsThePageAgain() async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            let (_, path) = try await start(server)
            let body = "email=%22%3E%3Cscript%3E&password=x"
            let response = try await server.send(.post, path, body: body)
            #expect(response.status == .unauthorized)
            #expect(response.text.contains("&quot;&gt;&lt;script&gt;"))
            #expect(!response.text.contains("<script"))
            for _ in 0..<6 { _ = try await server.send(.post, path, body: "email=a%40example.org&password=x") }
            let slowed = try await server.send(.post, path, body: form)
            #expect(slowed.status == .tooManyRequests)
            #expect(slowed.text.contains("Too many attempts"))
            #expect(slowed.headers[.retryAfter] != nil)
        }
    }

    @Test func aDisabledUsersCodeGetsNoKey() async throws {
        try await AccountServer.with { server in
            let (user, _) = try await server.user("a@example.org", password: "correct horse")
            let (id, path) = try await start(server)
            let code = try await logIn(server, path)
            try await server.users.setDisabled(true, user.id)
            #expect(try await exchange(server, id, code: code).status == .badRequest)
        }
    }

    @Test func thePageCannotBeFramedAndLoadsNothing() async throws {
        try await AccountServer.with { server in
            let (_, path) = try await start(server)
            for page in [try await server.send(.get, path), try await server.send(.get, "/api/cli-auth/login/none")] {
                let policy = try #require(page.headers[.contentSecurityPolicy])
                #expect(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"))
                #expect(page.header("X-Frame-Options") == "DENY")
                #expect(page.header("Referrer-Policy") == "same-origin")
                #expect(page.headers[.cacheControl] == "no-store")
            }
            let policy = try await server.send(.get, path).headers[.contentSecurityPolicy]
            #expect(policy?.contains("form-action 'self' http://127.0.0.1:4711;") == true)
        }
    }

    @Test(arguments: [
        ["Sec-Fetch-Site": "cross-site"], ["Sec-Fetch-Site": "same-site"], ["Origin": "http://evil.example"],
        ["Origin": "null"],
        ["Origin": "http://localhost.evil.example"],
    ])
    func aFormFromElsewhereIsRefused(headers: [String: String]) async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            let (_, path) = try await start(server)
            #expect(try await server.send(.post, path, body: form, headers: headers).status == .forbidden)
            let ours = ["Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"]
            #expect(try await server.send(.post, path, body: form, headers: ours).status == .seeOther)
        }
    }

    @Test(arguments: [
        "https://127.0.0.1/", "http://example.org/", "http://127.0.0.1.example.org/", "http://127.0.0.1@example.org/",
        "http://127.0.0.1:80@example.org/", "http://127.0.0.1\\@example.org/", "http://localhost.example.org/",
        "http://localhost:0/", "http://localhost:65536/", "http://localhost:8x/", "http://localhost:/", "http://[::2]/",
        "http://localhost/a?b=c", "http://localhost/#x", "http://localhost/a b", "http://localhost/\r\nX: y",
        "//localhost/",
        "javascript:alert(1)", "", "http://", "http://localhost/" + String(repeating: "a", count: 1_024),
    ])
    func aRedirectToElsewhereIsRefused(address: String) async throws {
        try await AccountServer.with { server in
            let response = try await server.send(
                .post,
                "/api/cli-auth/start",
                body: try startBody(["redirect_uri": address])
            )
            #expect(response.status == .unprocessableContent)
        }
    }

    @Test(arguments: [
        "http://127.0.0.1:1/callback", "http://localhost:65535", "http://[::1]:8080/a/b", "http://localhost/",
    ])
    func aRedirectToTheSameMachineIsTaken(address: String) async throws {
        try await AccountServer.with { server in
            let response = try await server.send(
                .post,
                "/api/cli-auth/start",
                body: try startBody(["redirect_uri": address])
            )
            #expect(response.status == .ok)
        }
    }

    @Test func aMalformedStartRequestIs422() async throws {
        try await AccountServer.with { server in
            let changes: [[String: Any]] = [
                ["code_challenge_method": "plain"], ["code_challenge": "short"], ["state": ""], ["state": "a b"],
                ["code_challenge": String(repeating: "=", count: 43)], ["hostname": 7], ["state": NSNull()],
                ["state": String(repeating: "s", count: 513)],
            ]
            for change in changes {
                let response = try await server.send(.post, "/api/cli-auth/start", body: try startBody(change))
                #expect(response.status == .unprocessableContent, "\(change)")
            }
        }
    }

    @Test func oneAddressMayNotBeginWithoutEnd() async throws {
        try await AccountServer.with(proxies: 1) { server in
            func begin(from address: String) async throws -> TestResponse {
                let headers = ["X-Forwarded-For": address]
                return try await server.send(.post, "/api/cli-auth/start", body: try startBody(), headers: headers)
            }
            for _ in 0..<10 { #expect(try await begin(from: "192.0.2.1").status == .ok) }
            for _ in 0..<3 {
                let refused = try await begin(from: "192.0.2.1")
                #expect(refused.status == .tooManyRequests)
                #expect(refused.headers[.retryAfter] != nil)
                #expect(refused.header("RateLimit-Remaining") == "0")
            }
            #expect(try await begin(from: "192.0.2.2").status == .ok)
        }
    }

    @Test func aCodeIsInvalidAfterAPasswordChange() async throws {
        try await AccountServer.with { server in
            let (user, _) = try await server.user("a@example.org", password: "correct horse")
            let (id, path) = try await start(server)
            let code = try await logIn(server, path)
            try await server.users.setPassword(
                hash: (PasswordHash(of: "another", cost: AccountServer.cheap)).text,
                of: user.id
            )
            #expect(try await exchange(server, id, code: code).status == .badRequest)
        }
    }
}
