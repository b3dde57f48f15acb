// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import HTTPTypes
import HummingbirdTesting
import NIOPosix
import SwiftletAccounts
import SwiftletCore
import SwiftletStore
import Testing

@Suite struct TokenTests {
    private func jwt(_ claims: [String: Any], algorithm: String = "HS256", secret: [UInt8] = AccountServer.secret)
        throws -> String
    {
        let header = try JSONSerialization.data(withJSONObject: ["alg": algorithm, "typ": "JWT"]).base64URL
        let body = header + "." + (try JSONSerialization.data(withJSONObject: claims)).base64URL
        let code = HMAC<SHA256>.authenticationCode(for: Data(body.utf8), using: SymmetricKey(data: secret))
        return body + "." + (algorithm == "none" ? "" : Data(code).base64URL)
    }

    @Test func aTokenIsAsGoodAsAKey() async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            let response = try await server.logIn("A@example.org", "correct horse")
            #expect(response.headers[.cacheControl] == "no-store")
            let body = try response.object
            #expect(body["token_type"] as? String == "bearer")
            #expect(body["expires_in"] as? Int == 3_600)
            let token = try #require(body["access_token"] as? String)
            let me = try await server.send(.get, "/v1/users/me", token: token)
            #expect(me.status == .ok)
            #expect(try me.object["email"] as? String == "a@example.org")
            #expect(try me.object["is_verified"] as? Bool == true)
            #expect(try await server.send(.post, "/execute", token: token, body: #"{"command":"1"}"#).status == .ok)
        }
    }

    @Test func aKeyAsABearerIsTheKey() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            #expect(try await server.send(.get, "/v1/users/me", token: key).status == .ok)
        }
    }

    @Test(arguments: [
        ("a@example.org", "wrong"), ("a@example.org", ""), ("nobody@example.org", "correct horse"), ("", ""),
        ("no-password@example.org", ""), ("disabled@example.org", "correct horse"),
        ("a@example.org", "correct horse" + String(repeating: " ", count: 2_000)),
    ])
    func everyFailedLogInHasTheSameAnswer(email: String, password: String) async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            _ = try await server.user("no-password@example.org")
            let (disabled, _) = try await server.user("disabled@example.org", password: "correct horse")
            try await server.users.setDisabled(true, disabled.id)
            let response = try await server.logIn(email, password)
            #expect(response.status == .badRequest)
            #expect(try response.object["error"] as? String == "invalid_grant")
            #expect(try response.object["detail"] as? String == "Incorrect username or password")
        }
    }

    @Test(arguments: [
        ("", ["username", "password"]), ("username=a", ["password"]),
        (#"{"username":"a","password":"b"}"#, ["username", "password"]),
    ])
    func missingFieldsAreReportedInFastAPIsForm(body: String, missing: [String]) async throws {
        try await AccountServer.with { server in
            let response = try await server.send(.post, "/token", body: body)
            #expect(response.status == .unprocessableContent)
            let problems = try #require(try response.object["detail"] as? [[String: Any]])
            #expect(problems.compactMap { ($0["loc"] as? [String])?.last } == missing)
            #expect(problems.allSatisfy { $0["type"] as? String == "missing" })
        }
    }

    @Test(arguments: [("username", "username=a%00b&password=x"), ("password", "username=a&password=x%00")])
    func aNULIs422AndNeverReachesTheDatabase(field: String, body: String) async throws {
        try await AccountServer.with { server in
            let response = try await server.send(.post, "/token", body: body)
            #expect(response.status == .unprocessableContent)
            let problem = try #require((try response.object["detail"] as? [[String: Any]])?.first)
            #expect(problem["loc"] as? [String] == ["body", field])
        }
    }

    @Test(arguments: [" a@example.org", "a@example.org ", "a@example.org\n", "\u{7f}a@example.org"])
    func anEmailThatIsNoAddressMatchesNoUser(email: String) async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            #expect(try await server.logIn(email, "correct horse").status == .badRequest)
        }
    }

    @Test func passwordsAreCheckedOnTheThreadsThatAreGivenForIt() async throws {
        // Never started: whatever runs on other threads would get an answer all the same.
        let threads = NIOThreadPool(numberOfThreads: 1)
        try await AccountServer.with(passwordThreads: threads) { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            #expect(try await server.logIn("a@example.org", "correct horse").status.code >= 500)
        }
        try await threads.shutdownGracefully()
    }

    @Test(arguments: ["username=%", "username=%ff&password=x", "username=%zz&password=x"])
    func aMalformedFieldIs422(body: String) async throws {
        try await AccountServer.with { server in
            let response = try await server.send(.post, "/token", body: body)
            #expect(response.status == .unprocessableContent)
        }
    }

    @Test func anotherGrantIsRefused() async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            let body = "username=a@example.org&password=correct+horse&grant_type="
            let refused = try await server.send(.post, "/token", body: body + "client_credentials")
            #expect(refused.status == .badRequest)
            #expect(try refused.object["error"] as? String == "unsupported_grant_type")
            #expect(try await server.send(.post, "/token", body: body + "password").status == .ok)
        }
    }

    @Test func tokensDieWithThePasswordAndWithTheAccount() async throws {
        try await AccountServer.with { server in
            let (user, key) = try await server.user("a@example.org", password: "correct horse")
            func status(_ token: String) async throws -> HTTPResponse.Status {
                try await server.send(.get, "/v1/users/me", token: token).status
            }
            let first = try await server.token("a@example.org", "correct horse")
            #expect(try await status(first) == .ok)
            try await server.users.setPassword(
                hash: (PasswordHash(of: "another", cost: AccountServer.cheap)).text,
                of: user.id
            )
            #expect(try await status(first) == .unauthorized)
            let second = try await server.token("a@example.org", "another")
            try await server.users.setDisabled(true, user.id)
            #expect(try await status(second) == .unauthorized)
            #expect(try await status(key) == .unauthorized)
            try await server.users.setDisabled(false, user.id)
            #expect(try await status(second) == .unauthorized)
            #expect(try await status(key) == .ok)
        }
    }

    @Test func aTokenThatWeDidNotMakeOpensNothing() async throws {
        try await AccountServer.with { server in
            let (user, _) = try await server.user("a@example.org")
            let now = Date().timeIntervalSince1970
            var claims: [String: Any] = [
                "sub": "\(user.id)", "iss": "swiftlet", "iat": Int(now), "exp": Int(now) + 60, "gen": 0,
            ]
            func status(_ token: String) async throws -> HTTPResponse.Status {
                try await server.send(.get, "/v1/users/me", token: token).status
            }
            // The claims are good: what follows is refused for what it changes.
            #expect(try await status(try jwt(claims)) == .ok)
            #expect(try await status(try jwt(claims, secret: [UInt8](repeating: 8, count: 32))) == .unauthorized)
            #expect(try await status(try jwt(claims, algorithm: "none")) == .unauthorized)
            #expect(try await status(try jwt(claims) + "A") == .unauthorized)
            for (name, value) in [
                ("exp", Int(now) - 1), ("gen", 1), ("iss", "other"), ("sub", "99"), ("sub", "x"),
            ] as [(String, Any)] {
                let good = claims[name]
                claims[name] = value
                #expect(try await status(try jwt(claims)) == .unauthorized, "\(name)")
                claims[name] = good
            }
        }
    }

    @Test func afterFailuresTheRightPasswordMustWaitToo() async throws {
        try await AccountServer.with { server in
            _ = try await server.user("a@example.org", password: "correct horse")
            for _ in 0..<6 { #expect(try await server.logIn("a@example.org", "wrong").status == .badRequest) }
            let response = try await server.logIn("a@example.org", "correct horse")
            #expect(response.status == .tooManyRequests)
            #expect(response.headers[.retryAfter] == "1")
            #expect(try response.object["detail"] is String)
            #expect(try response.object["retry_after"] as? Int == 1)
            #expect(response.header("RateLimit-Limit") == "5")
            #expect(response.header("RateLimit-Remaining") == "0")
            #expect(response.header("RateLimit-Reset") == "1")
        }
    }
}

@Suite struct AdmissionTests {
    @Test func responsesOfALimitedPlanHaveTheRemainderAndThenRefuse() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org", plan: "tiny")
            let (_, other) = try await server.user("b@example.org", plan: "tiny")
            // A request counts, whatever becomes of it.
            let requests: [(HTTPRequest.Method, String, String, HTTPResponse.Status)] = [
                (.get, "/v1/users/me", "", .ok),
                (.post, "/execute", #"{"command":"1","timeout":0}"#, .unprocessableContent),
                (.get, "/v1/api-keys/99", "", .notFound),
            ]
            for (number, request) in requests.enumerated() {
                let response = try await server.send(request.0, request.1, key: key, body: request.2)
                #expect(response.status == request.3)
                #expect(response.header("RateLimit-Limit") == "3")
                #expect(response.header("RateLimit-Remaining") == String(2 - number))
                #expect(response.header("RateLimit-Reset") == String(number + 1))
            }
            let refused = try await server.send(.post, "/execute", key: key, body: #"{"command":"1"}"#)
            #expect(refused.status == .tooManyRequests)
            #expect(refused.headers[.retryAfter] == "1")
            #expect(refused.header("RateLimit-Remaining") == "0")
            #expect(
                try refused.object["detail"] as? String
                    == "Rate limit exceeded: the tiny plan has 60 requests per minute; try again in 1 s"
            )
            #expect(try await server.send(.get, "/v1/users/me", key: other).status == .ok)
        }
    }

    @Test func anUnlimitedPlansAnswersSayNothing() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            for _ in 0..<50 {
                let response = try await server.send(.get, "/v1/users/me", key: key)
                #expect(response.status == .ok)
                #expect(response.header("RateLimit-Limit") == nil)
            }
        }
    }

    @Test func aPlanThatTheServerDoesNotKnowIs503() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org", plan: "gold")
            let response = try await server.send(.get, "/v1/users/me", key: key)
            #expect(response.status == .serviceUnavailable)
            #expect(try response.object["detail"] is String)
        }
    }

    @Test func theLimitsAreShownWithTheirRemainder() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org", plan: "tiny")
            let body = try await server.send(.get, "/v1/users/me/limits", key: key).object
            let requests = try #require(body["requests"] as? [String: Any])
            #expect(requests["per_minute"] as? Int == 60)
            #expect(requests["burst"] as? Int == 3)
            #expect(requests["remaining"] as? Int == 2)
            #expect(body["new_vms"] is NSNull)
            #expect((body["concurrent_vms"] as? [String: Any])?["used"] as? Int == 0)
        }
    }
}

@Suite struct KeyRouteTests {
    @Test(arguments: ["/v1/api-keys", "/v1/api-keys/"])
    func aKeyIsMadeSeenChangedAndEnded(path: String) async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            let body = #"{"description":"ci","expires_at":"2040-01-02T03:04:05Z"}"#
            let made = try await server.send(.post, path, key: key, body: body).object
            let text = try #require(made["api_key"] as? String)
            #expect(made["key"] as? String == text)
            #expect(made["description"] as? String == "ci")
            #expect(made["expires_at"] as? String == "2040-01-02T03:04:05.000000")
            let id = try #require(made["id"] as? Int)
            #expect(try await server.send(.get, "/v1/users/me", key: text).status == .ok)
            let listed = try await server.send(.get, path, key: key).array
            #expect(listed.count == 2)
            #expect(listed.allSatisfy { $0["api_key"] == nil && $0["key"] == nil })
            let one = "/v1/api-keys/\(id)" + (path.hasSuffix("/") ? "/" : "")
            let changed = try await server.send(.patch, one, key: key, body: #"{"description":"new"}"#).object
            #expect(changed["description"] as? String == "new")
            #expect(changed["expires_at"] as? String == "2040-01-02T03:04:05.000000")
            let endless = try await server.send(.patch, one, key: key, body: #"{"expires_at":null}"#).object
            #expect(endless["expires_at"] is NSNull)
            #expect(try await server.send(.get, one, key: key).object["description"] as? String == "new")
            #expect(try await server.send(.delete, one, key: key).status == .ok)
            #expect(try await server.send(.get, one, key: key).status == .notFound)
            #expect(try await server.send(.delete, one, key: key).status == .notFound)
            #expect(try await server.send(.get, "/v1/users/me", key: text).status == .unauthorized)
        }
    }

    @Test func someoneElsesKeyIsNotThere() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            let (_, other) = try await server.user("b@example.org")
            let id = try #require(try await server.send(.get, "/v1/api-keys/", key: other).array.first?["id"] as? Int)
            for method in [HTTPRequest.Method.get, .patch, .delete] {
                let response = try await server.send(method, "/v1/api-keys/\(id)", key: key, body: "{}")
                #expect(response.status == .notFound)
            }
            #expect(try await server.send(.get, "/v1/users/me", key: other).status == .ok)
        }
    }

    @Test(arguments: [
        #"{"description":7}"#, #"{"expires_in":0}"#, #"{"expires_in":1e18}"#, #"{"expires_at":"tomorrow"}"#,
        #"{"expires_at":"2001-01-01T00:00:00"}"#, #"{"expires_at":"9999-01-01T00:00:00Z"}"#, #"{"expires_at":7}"#, "[]",
        "{",
    ])
    func aMalformedKeyChangeIs422(body: String) async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            #expect(try await server.send(.post, "/v1/api-keys/", key: key, body: body).status == .unprocessableContent)
            let count = try await server.send(.get, "/v1/api-keys/", key: key).array.count
            #expect(count == 1)
        }
    }

    @Test(arguments: ["x", "-1", "99999999999999999999", "1%00", "%F0%9F%94%91"])
    func aKeyIDThatIsNoNumberIsNotFound(id: String) async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            #expect(try await server.send(.get, "/v1/api-keys/\(id)", key: key).status == .notFound)
        }
    }

    @Test func withoutACredentialNothingIsAnswered() async throws {
        try await AccountServer.with { server in
            for path in ["/v1/api-keys/", "/v1/api-keys/1", "/v1/users/me", "/v1/users/me/limits"] {
                let none = try await server.send(.get, path)
                #expect(none.status == .unauthorized)
                let wrong = try await server.send(.get, path, key: "wrong")
                #expect(wrong.status == .unauthorized)
            }
        }
    }
}
