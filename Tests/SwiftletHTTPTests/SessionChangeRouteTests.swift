// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import SwiftletCore
import SwiftletSessions
import Testing

extension RouteTests {
    private static let session = "/v1/sessions/session/4f0c7b9e-1111-4222-8333-444455556666"

    private func send(
        _ client: any TestClientProtocol,
        _ method: HTTPRequest.Method,
        _ uri: String,
        body: String = "",
        key: String?
    ) async throws -> TestResponse {
        var headers: HTTPFields = [:]
        if let key, let name = HTTPField.Name("X-API-Key") { headers[name] = key }
        return try await client.execute(uri: uri, method: method, headers: headers, body: ByteBuffer(string: body))
    }

    /// The fields that a 422 names.
    private func complaints(_ response: TestResponse) throws -> [String] {
        let details = try #require(try object(response)["detail"] as? [[String: Any]])
        return details.compactMap { ($0["loc"] as? [String])?.joined(separator: ".") }
    }

    @Test(arguments: [
        ("", 3), ("?limit=2", 2), ("?metadata=%7B%7D", 3), (#"?metadata={"a":"x"}"#, 2),
        (#"?metadata={"a":"x","b":1.0}"#, 1),
        (#"?metadata=%7B%22b%22%3A+1%7D"#, 1), (#"?metadata={"n":{"q":2,"p":[1]}}"#, 1),
        (#"?metadata={"n":{"p":[1]}}"#, 0),
        (#"?metadata={"a":"y"}"#, 0), (#"?metadata={"c":null}"#, 0), ("?metadata=", 3), ("?limit=1&limit=3", 3),
        ("?other=1", 3),
    ])
    func sandboxesAreThoseWithAllPairs(query: String, count: Int) async throws {
        let metadata = [#"{"a":"x"}"#, #"{"a":"x","b":1}"#, #"{"n":{"p":[1],"q":2}}"#]
        try await withServer(sessions: FakeSessions(metadata: metadata)) { client, key in
            let uri =
                "/v1/sessions/sandboxes"
                + (query.addingPercentEncoding(
                    withAllowedCharacters: .init(charactersIn: "?&=%+").union(.alphanumerics)
                ) ?? "")
            let response = try await send(client, .get, uri, key: key)
            #expect(response.status == .ok)
            let data = Data(response.body.readableBytesView)
            let items = try #require(JSONSerialization.jsonObject(with: data) as? [[String: Any]])
            #expect(items.count == count)
            for item in items {
                #expect(item["sandbox_id"] as? String == "vm-x" && item["status"] as? String == "active")
                #expect(item["started_at"] as? String == "1970-01-01T00:00:00.500000")
                #expect(item["end_at"] as? String == "1970-01-01T00:05:00.500000")
            }
        }
    }

    @Test(arguments: [
        ("/v1/sessions/sandboxes?limit=0", "query.limit"), ("/v1/sessions/sandboxes?limit=1001", "query.limit"),
        ("/v1/sessions/sandboxes?limit=", "query.limit"), ("/v1/sessions/sandboxes?limit=1e2", "query.limit"),
        ("/v1/sessions/sandboxes?limit=%ff", "query.limit"),
        ("/v1/sessions/sandboxes?metadata=%ff%", "query.metadata"),
        ("/v1/sessions/sandboxes?metadata=x", "query.metadata"),
        ("/v1/sessions/sandboxes?metadata=[1]", "query.metadata"),
        (
            "/v1/sessions/sandboxes?metadata=%7B%22a%22:%22\(String(repeating: "x", count: 4_096))%22%7D",
            "query.metadata"
        ),
        ("/v1/users/me/usage-breakdown?days=0", "query.days"), ("/v1/users/me/usage-breakdown?days=366", "query.days"),
        ("/v1/users/me/usage-breakdown?days=x", "query.days"),
        ("/v1/users/me/usage-breakdown?start_date=2026-02-30", "query.start_date"),
        ("/v1/users/me/usage-breakdown?end_date=tomorrow", "query.end_date"),
        ("/v1/users/me/usage-breakdown?start_date=2024-01-02&end_date=2024-01-01", "query.start_date"),
        ("/v1/users/me/usage-breakdown?start_date=2024-01-01&end_date=2024-12-31", "query.start_date"),
        ("/v1/users/me/usage-breakdown?start_date=9999-01-01", "query.start_date"),
    ])
    func queriesThatDoNotFitAre422(uri: String, field: String) async throws {
        try await withServer { client, key in
            let response = try await send(client, .get, uri, key: key)
            #expect(response.status == .unprocessableContent)
            #expect(try complaints(response) == [field])
        }
    }

    @Test(arguments: [
        ("days=1", 1), ("days=365", 365), ("", 30), ("start_date=2024-02-28&end_date=2024-03-01", 3),
        ("start_date=2024-02-28T12:00:00Z&end_date=2024-02-28", 1), ("end_date=2024-03-01&days=2", 2),
        ("start_date=2024-01-01", 365), ("start_date=&end_date=", 30),
    ])
    func theBreakdownHasEveryDayOfItsPeriod(query: String, count: Int) async throws {
        try await withServer { client, key in
            let response = try await send(client, .get, "/v1/users/me/usage-breakdown?\(query)", key: key)
            #expect(response.status == .ok)
            let usage = try object(response)
            let days = try #require(usage["daily_breakdown"] as? [[String: Any]])
            #expect(days.count == count && usage["total_days"] as? Int == count)
            #expect(days.first?["date"] as? String == usage["period_start"] as? String)
            #expect(days.last?["date"] as? String == usage["period_end"] as? String)
            let totals = try #require(usage["totals"] as? [String: Double])
            #expect(totals == ["cost_dollars": 0, "cpu_hours": 0, "ram_gib_hours": 0])
        }
    }

    @Test func aChangeIsAnsweredWithTheSession() async throws {
        try await withServer { client, key in
            let body = #"{"vm_lifetime_seconds":900,"metadata":{"a":1}}"#
            let response = try await send(client, .patch, Self.session, body: body, key: key)
            #expect(response.status == .ok)
            let session = try object(response)
            #expect(session["vm_lifetime_seconds"] as? Int == 900)
            #expect(session["metadata"] as? [String: Int] == ["a": 1])
        }
    }

    @Test(arguments: [
        (#"{"vm_lifetime_seconds":19}"#, "body.vm_lifetime_seconds"),
        (#"{"vm_lifetime_seconds":86401}"#, "body.vm_lifetime_seconds"),
        (#"{"vm_lifetime_seconds":"x"}"#, "body.vm_lifetime_seconds"), (#"{"metadata":[]}"#, "body.metadata"),
    ])
    func changesThatDoNotFitAre422(body: String, field: String) async throws {
        try await withServer { client, key in
            let response = try await send(client, .patch, Self.session, body: body, key: key)
            #expect(response.status == .unprocessableContent)
            #expect(try complaints(response) == [field])
        }
    }

    @Test func aShorterLifetimeIsAConflict() async throws {
        try await withServer(sessions: FakeSessions(failure: .lifetime("message"))) { client, key in
            let response = try await send(client, .patch, Self.session, body: "{}", key: key)
            #expect(response.status == .conflict)
            #expect(try object(response)["detail"] as? String == "message")
        }
    }

    @Test func anotherUsersEventsAreHidden() async throws {
        let id = try #require(SessionID(rawValue: "4f0c7b9e-1111-4222-8333-444455556666"))
        try await withServer(sessions: FakeSessions(failure: .notFound(id))) { client, key in
            for (method, uri) in [
                (HTTPRequest.Method.patch, Self.session), (.delete, Self.session), (.delete, "/v1/sessions/session/x"),
                (.get, "/v1/sessions/usage/\(id)"), (.get, "/v1/sessions/usage/x"),
            ] {
                let response = try await send(client, method, uri, body: method == .patch ? "{}" : "", key: key)
                #expect(response.status == .notFound)
            }
        }
    }

    @Test func allOfItNeedsAKey() async throws {
        try await withServer { client, _ in
            for (method, uri) in [
                (HTTPRequest.Method.patch, Self.session), (.delete, Self.session), (.get, "/v1/sessions/sandboxes"),
                (.get, Self.session.replacing("session/", with: "usage/")), (.get, "/v1/users/me/usage-breakdown"),
            ] {
                let response = try await send(client, method, uri, body: method == .patch ? "{}" : "", key: nil)
                #expect(response.status == .unauthorized)
            }
        }
    }
}
