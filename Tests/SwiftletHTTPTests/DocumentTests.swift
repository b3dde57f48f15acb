// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import Testing

@Suite struct DocumentTests {
    private struct Documented {
        let path: String
        let method: String
        let operation: [String: Any]
    }

    private func withDocument(
        _ body: @escaping @Sendable (any TestClientProtocol, [String: Any]) async throws -> Void
    ) async throws {
        try await TestServer.with { client, _ in
            let response = try await client.execute(uri: "/openapi.json", method: .get)
            #expect(response.status == .ok)
            #expect(response.headers[.contentType] == "application/json")
            try await body(client, try response.object)
        }
    }

    private func operations(of document: [String: Any]) throws -> [Documented] {
        let paths = try #require(document["paths"] as? [String: [String: [String: Any]]])
        return paths.flatMap { path, item in
            item.map { Documented(path: path, method: $0.key, operation: $0.value) }
        }
    }

    /// All values of a key, however deep.
    private func values(of key: String, in value: Any) -> [Any] {
        if let object = value as? [String: Any] {
            return object.flatMap { name, value in
                (name == key ? [value] : []) + values(of: key, in: value)
            }
        }
        return (value as? [Any])?.flatMap { values(of: key, in: $0) } ?? []
    }

    @Test func everyReferenceLeadsSomewhere() async throws {
        try await withDocument { _, document in
            let references = values(of: "$ref", in: document).compactMap { $0 as? String }
            #expect(references.count > 100)
            for reference in Set(references) {
                let steps = reference.split(separator: "/").dropFirst().map(String.init)
                let found = steps.reduce(document as Any?) { ($0 as? [String: Any])?[$1] }
                #expect(found != nil, "\(reference)")
            }
        }
    }

    @Test func theRoutesAndTheDocumentAreTheSame() async throws {
        let served = try await TestServer.routes()
        try await withDocument { _, document in
            let described = try operations(of: document).map { "\($0.method.uppercased()) \($0.path)" }
            #expect(described.count == Set(described).count)
            // The router adds HEAD to each GET that has none of its own.
            let own = served.filter { !$0.hasPrefix("HEAD ") || described.contains($0) }
            #expect(Set(own) == Set(described))
        }
    }

    @Test func operationsHaveNamesOfTheirOwnAndDeclareTheirParameters() async throws {
        try await withDocument { _, document in
            let all = try operations(of: document)
            let names = all.compactMap { $0.operation["operationId"] as? String }
            #expect(names.count == all.count)
            #expect(Set(names).count == all.count)
            for item in all {
                let parameters = item.operation["parameters"] as? [[String: Any]] ?? []
                let declared = parameters.filter { $0["in"] as? String == "path" }.compactMap { $0["name"] as? String }
                let needed = item.path.matches(of: /\{(\w+)\}/).map { String($0.output.1) }
                #expect(Set(declared) == Set(needed), "\(item.method) \(item.path)")
                let keys = parameters.map { "\($0["in"] ?? "") \($0["name"] ?? "")" }
                #expect(Set(keys).count == keys.count, "\(item.method) \(item.path)")
            }
        }
    }

    @Test func operationsThatNeedAKeyDeclareItAndAre401WithoutOne() async throws {
        try await withDocument { client, document in
            for item in try operations(of: document) {
                let security = try #require(item.operation["security"] as? [Any])
                let replies = try #require(item.operation["responses"] as? [String: Any])
                let canSucceed = replies["200"] != nil || replies["303"] != nil
                // The guest's root cannot be removed.
                #expect(canSucceed || "\(item.method) \(item.path)" == "delete /v1/sessions/{id}/files")
                guard !security.isEmpty else { continue }
                #expect(replies["401"] != nil && replies["429"] != nil && replies["503"] != nil)
                let method = try #require(HTTPRequest.Method(item.method.uppercased()))
                let path = item.path.replacing(/\{\w+\}/, with: "x")
                let isForm = item.path == "/upload"
                let response = try await client.execute(
                    uri: path,
                    method: method,
                    headers: [.contentType: isForm ? "multipart/form-data; boundary=b" : "application/json"],
                    body: ByteBuffer(string: isForm ? "--b--\r\n" : #"{"filename":"a","session_id":"b"}"#)
                )
                #expect(response.status == .unauthorized, "\(item.method) \(item.path)")
            }
        }
    }

    @Test func theCommandRequestIsThePublishedOne() async throws {
        try await withDocument { _, document in
            let components = try #require(document["components"] as? [String: Any])
            let schemas = try #require(components["schemas"] as? [String: [String: Any]])
            let request = try #require(schemas["CommandRequest"])
            let fields = try #require(request["properties"] as? [String: [String: Any]])
            let names = ["command", "code", "api_key", "session_id", "language", "timeout", "vault_ids"]
            #expect(Set(fields.keys) == Set(names))
            #expect(request["required"] == nil)
            for name in names where name != "timeout" {
                let choices = try #require(fields[name]?["anyOf"] as? [[String: Any]])
                #expect(choices.map { $0["type"] as? String } == [name == "vault_ids" ? "array" : "string", "null"])
            }
            #expect(fields["language"]?["default"] as? String == "python")
            let timeout = try #require(fields["timeout"])
            #expect(timeout["type"] as? String == "integer")
            #expect(timeout["minimum"] as? Int == 1 && timeout["maximum"] as? Int == 600)
            #expect(timeout["default"] as? Int == 60)
            let problem = try #require(schemas["ValidationError"])
            #expect(Set(try #require(problem["required"] as? [String])) == ["loc", "msg", "type"])
            #expect(schemas["HTTPValidationError"] != nil)
        }
    }

    @Test func thePageRunsItsOwnScriptAndNothingElse() async throws {
        try await TestServer.with { client, _ in
            let response = try await client.execute(uri: "/docs", method: .get)
            #expect(response.headers[.contentType] == "text/html; charset=utf-8")
            let page = String(buffer: response.body)
            let policy = try #require(response.headers[.contentSecurityPolicy])
            #expect(policy.contains("default-src 'none'") && !policy.contains("unsafe"))
            for element in ["script", "style"] {
                let parts = page.split(separator: "<\(element)>").dropFirst()
                #expect(parts.count == 1)
                let content = try #require(parts.first?.split(separator: "</\(element)>").first)
                let digest = Data(SHA256.hash(data: Data(content.utf8))).base64EncodedString()
                #expect(policy.contains("\(element)-src 'sha256-\(digest)'"))
            }
            for word in ["://", "src=", " style=", " onclick=", "innerHTML"] {
                #expect(!page.contains(word), "\(word)")
            }
        }
    }

    @Test func aWrongMethodIs405WithTheAllowedOnes() async throws {
        try await TestServer.with { client, _ in
            let response = try await client.execute(uri: "/v1/executions", method: .put)
            #expect(response.status == .methodNotAllowed)
            #expect(response.headers[.allow] == "GET, HEAD")
        }
    }
}
