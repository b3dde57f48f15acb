// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import SwiftletSessions
import SwiftletStore

/// `POST /execute`: runs code in the caller's microVM.
struct ExecuteRoute: Sendable {
    /// The largest source, in bytes.
    private static let maximumSource = 16 << 20

    let sessions: any SessionAPI
    let authenticator: Authenticator
    let maximumBody: Int

    var routes: [Route] { [Route(.post, "/execute", execute)] }

    private func execute(_ request: Request, _ context: AppContext) async throws -> Response {
        let receivedAt = ContinuousClock.now
        var reader = try BodyReader(try await request.collected(upTo: maximumBody))
        let user = try await authenticator.user(request.headers, bodyKey: reader.string("api_key"))
        let command = try parse(&reader, user: user, receivedAt: receivedAt)
        return ExecutionResponse(result: try await sessions.execute(command)).response()
    }

    private func parse(
        _ reader: inout BodyReader,
        user: UserID,
        receivedAt: ContinuousClock.Instant
    ) throws -> ExecutionRequest {
        let command = reader.string("command")
        let code = reader.string("code")
        let session = reader.string("session_id")
        let language = reader.string("language") ?? "python"
        let timeout = reader.integer("timeout", in: 1...600) ?? 60
        let vaults = reader.stringArray("vault_ids") ?? []
        let source = code ?? command
        if Language(name: language) == .bash, source?.utf8.contains(0) == true {
            reader.report(code == nil ? "command" : "code", "value_error", "A bash script cannot contain NUL")
        }
        try reader.finish()
        guard let source else { throw Self.missingSource }
        guard source.utf8.count <= Self.maximumSource else {
            throw APIError(.contentTooLarge, "The code is larger than \(Self.maximumSource) bytes")
        }
        guard let language = Language(name: language) else {
            let known = Language.allCases.map(\.rawValue).joined(separator: ", ")
            throw APIError(.badRequest, "Unsupported language '\(language.prefix(64))'. Use one of: \(known)")
        }
        if let vault = vaults.first { throw APIError(.notFound, "Vault '\(vault.prefix(64))' not found") }
        return ExecutionRequest(
            session: try session.map(Self.sessionID),
            owner: user,
            source: source,
            language: language,
            timeout: .seconds(timeout),
            receivedAt: receivedAt
        )
    }

    private static func sessionID(_ text: String) throws -> SessionID {
        guard let id = SessionID(rawValue: text) else {
            throw APIError(.notFound, "Session \(text.prefix(64)) not found")
        }
        return id
    }

    /// Clients that read results get one.
    private static var missingSource: APIError {
        let words = "Missing 'code' or 'command' field"
        return APIError(
            .badRequest,
            body: [
                "detail": .string(words), "stdout": "", "stderr": .string(words), "execution_time": .number(0),
                "cpu_time": .number(0),
            ]
        )
    }
}
