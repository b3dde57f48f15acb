// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import HummingbirdTesting
import SwiftletCore
import SwiftletStore
import Testing

@Suite struct AuditRouteTests {
    private func events(
        _ server: AccountServer,
        _ key: String,
        _ query: String = ""
    ) async throws -> [[String: Any]] {
        let response = try await server.send(.get, "/v1/audit/events?limit=200&\(query)", key: key)
        #expect(response.status == .ok)
        return try #require(try response.object["items"] as? [[String: Any]])
    }

    @Test func aKeysLifeIsAudited() async throws {
        try await AccountServer.with { server in
            let (user, key) = try await server.user("a@example.org")
            let made = try await server.send(.post, "/v1/api-keys/", key: key, headers: ["x-request-id": "r-1"])
            let id = try #require(try made.object["id"] as? Int)
            _ = try await server.send(.patch, "/v1/api-keys/\(id)", key: key, body: #"{"description":"x"}"#)
            _ = try await server.send(.delete, "/v1/api-keys/\(id)", key: key)
            let found = try await events(server, key)
            #expect(
                found.map { $0["event_type"] as? String } == ["api_key.revoked", "api_key.updated", "api_key.created"]
            )
            let first = try #require(found.last)
            #expect(first["event_group"] as? String == "api_key")
            #expect(first["status"] as? String == "success")
            #expect(first["actor_type"] as? String == "user")
            #expect(first["actor_id"] as? String == "\(user.id)")
            #expect(first["resource_type"] as? String == "api_key")
            #expect(first["resource_id"] as? String == "\(id)")
            #expect(first["request_id"] as? String == "r-1")
            #expect(first["credential"] as? String == "key:\(id - 1)")
            #expect(first["event_payload"] as? [String: String] == [:])
            let text = try await server.send(.get, "/v1/audit/events", key: key).text
            #expect(!text.contains("instavm_sk_"))
        }
    }

    @Test func logInsAreAuditedForWhomTheyConcern() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org", password: "correct horse")
            #expect(try await server.logIn("a@example.org", "wrong").status == .badRequest)
            #expect(try await server.logIn("a@example.org", "wrong").status == .badRequest)
            #expect(try await server.logIn("a@example.org", "correct horse").status == .ok)
            let found = try await events(server, key, "event_type=auth.login")
            // The second failure is counted with the first.
            #expect(found.map { $0["status"] as? String } == ["success", "failure"])
            #expect(found.map { $0["actor_type"] as? String } == ["user", "anonymous"])
            #expect(found.map { $0["credential"] as? String } == ["password", nil])
        }
    }

    @Test func theEmailOfAnUnknownUserIsNotAudited() async throws {
        try await AccountServer.with { server in
            #expect(try await server.logIn("my secret password", "hunter2").status == .badRequest)
            let all = try await server.audit.list(.init(owner: nil))
            #expect(all.map(\.type) == [.loggedIn])
            #expect(all.first?.owner == nil)
            #expect(!"\(all)".contains("secret"))
            #expect(!"\(all)".contains("hunter2"))
        }
    }

    @Test func wrongKeysAreAuditedOnceAMinuteAndForNobodyToRead() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            for number in 0..<20 {
                let response = try await server.send(.get, "/v1/users/me", key: "instavm_sk_wrong\(number)")
                #expect(response.status == .unauthorized)
            }
            #expect(try await server.send(.get, "/v1/users/me").status == .unauthorized)
            #expect(try await events(server, key).isEmpty)
            let all = try await server.audit.list(.init(owner: nil))
            #expect(all.map(\.type) == [.credentialRefused])
            #expect(all.first?.status == .denied)
            #expect(all.first?.message == "Invalid API key")
            #expect(all.first?.details["route"] == .text("GET /v1/users/me"))
        }
    }

    @Test func aDisabledUsersKeyIsRefusedByName() async throws {
        try await AccountServer.with { server in
            let (user, key) = try await server.user("a@example.org")
            try await server.users.setDisabled(true, user.id)
            #expect(try await server.send(.get, "/v1/users/me", key: key).status == .unauthorized)
            try await server.users.setDisabled(false, user.id)
            #expect(try await events(server, key).map { $0["event_type"] as? String } == ["auth.refused"])
        }
    }

    @Test func aRefusalByTheRateIsAuditedAndCounted() async throws {
        try await AccountServer.with { server in
            let (user, key) = try await server.user("a@example.org", plan: "tiny")
            var codes: [Int] = []
            for _ in 0..<6 { codes.append(try await server.send(.get, "/v1/users/me", key: key).status.code) }
            #expect(codes == [200, 200, 200, 429, 429, 429])
            let metrics = try await server.send(.get, "/metrics").text
            #expect(metrics.contains(#"swiftlet_rate_limit_refusals_total{limit="requests"} 3.0"#))
            #expect(metrics.contains("swiftlet_audit_events_dropped_total 0.0"))
            try await server.users.setPlan("unlimited", of: user.id)
            let found = try await events(server, key)
            #expect(found.map { $0["event_type"] as? String } == ["rate_limit.refused"])
            #expect((found.first?["error_message"] as? String)?.contains("60 requests per minute") == true)
        }
    }

    @Test func sessionsExecutionsAndFilesAreAuditedWithoutTheirContent() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            let body = #"{"env": {"MARKER_NAME": "marker-value"}, "metadata": {"m": "marker-value"}}"#
            let made = try await server.send(.post, "/v1/sessions/session", key: key, body: body)
            let session = try #require(try made.object["session_id"] as? String)
            let code = #"{"command": "print('marker-value')", "session_id": "\#(session)"}"#
            _ = try await server.send(.post, "/execute", key: key, body: code)
            _ = try await server.send(.post, "/kill", key: key, body: #"{"session_id": "\#(session)"}"#)
            _ = try await server.send(.delete, "/v1/sessions/\(session)/files/tmp/x", key: key)
            let found = try await events(server, key)
            let types = ["file.removed", "session.killed", "execution.created", "session.created"]
            #expect(found.map { $0["event_type"] as? String } == types)
            #expect(found.first?["resource_id"] as? String == "/tmp/x")
            #expect(found.first?["session_id"] as? String == session)
            #expect(found[1]["vm_id"] as? String == "vm-x")
            #expect((found[2]["event_payload"] as? [String: String])?["language"] == "python")
            #expect(found[3]["resource_id"] as? String == session)
            let text = try await server.send(.get, "/v1/audit/events", key: key).text
            #expect(!text.contains("marker-value"))
        }
    }

    @Test func aKeyInThePathIsNotKept() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            #expect(try await server.send(.delete, "/v1/api-keys/\(key)", key: key).status == .notFound)
            let found = try await events(server, key)
            #expect(found.first?["status"] as? String == "failure")
            #expect(found.first?["error_message"] as? String == "API key instavm_sk_... not found")
            #expect(found.first?["resource_id"] is NSNull)
        }
    }

    @Test func nobodySeesWhatConcernsOthers() async throws {
        try await AccountServer.with { server in
            let (ada, adas) = try await server.user("a@example.org")
            let (_, bobs) = try await server.user("b@example.org")
            _ = try await server.send(.post, "/v1/sessions/session", key: adas, body: "{}")
            let event = try #require(try await events(server, adas).first)
            let id = try #require(event["id"] as? String)
            #expect(try await server.send(.get, "/v1/audit/events/\(id)", key: adas).status == .ok)
            #expect(try await server.send(.get, "/v1/audit/events/\(id)", key: bobs).status == .notFound)
            #expect(try await server.send(.get, "/v1/audit/events/evt-1", key: bobs).status == .notFound)
            #expect(try await server.send(.get, "/v1/audit/events").status == .unauthorized)
            #expect(try await events(server, bobs).isEmpty)
            #expect(try await events(server, bobs, "user_id=\(ada.id)").isEmpty)
            #expect(try await events(server, adas, "user_id=\(ada.id)").count == 1)
            let session = try #require(event["session_id"] as? String)
            #expect(try await events(server, bobs, "session_id=\(session)").isEmpty)
        }
    }

    @Test func pagesFollowTheCursor() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            for _ in 0..<5 { _ = try await server.send(.post, "/v1/sessions/session", key: key, body: "{}") }
            var seen: [String] = []
            var cursor = ""
            while true {
                let page = try await server.send(.get, "/v1/audit/events?limit=2\(cursor)", key: key).object
                seen += try #require(page["items"] as? [[String: Any]]).compactMap { $0["id"] as? String }
                guard let next = page["next_cursor"] as? String else { break }
                cursor = "&cursor=\(next)"
            }
            #expect(seen.count == 5)
            #expect(seen == (try await events(server, key)).compactMap { $0["id"] as? String })
        }
    }

    @Test(arguments: [
        "event_group=gold", "event_type=gold", "status=gold", "limit=0", "limit=201", "limit=x", "cursor=1",
        "session_id=1", "user_id=x", "vm_id=\(String(repeating: "v", count: 65))", "cursor=evt-%27;--",
    ])
    func aWrongQueryIs422WithTheField(query: String) async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            let response = try await server.send(.get, "/v1/audit/events?\(query)", key: key)
            #expect(response.status == .unprocessableContent)
            let problems = try #require(try response.object["detail"] as? [[String: Any]])
            #expect((problems.first?["loc"] as? [String])?.last == query.prefix { $0 != "=" }.description)
        }
    }

    @Test func theCatalogHasEveryTypeInItsGroup() async throws {
        try await AccountServer.with { server in
            let (_, key) = try await server.user("a@example.org")
            let reply = try await server.send(.get, "/v1/audit/catalog", key: key).object
            let catalog = try #require(reply["catalog"] as? [String: [String]])
            #expect(catalog["session"] == ["session.created", "session.deleted", "session.killed", "session.updated"])
            #expect(catalog.values.joined().count == AuditEventType.allCases.count)
        }
    }
}
