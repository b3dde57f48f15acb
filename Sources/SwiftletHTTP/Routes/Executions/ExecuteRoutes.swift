// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletCore
import SwiftletJSON
import SwiftletSessions
import SwiftletStore

/// `POST /execute` and `POST /execute_async`: run code in the caller's microVM.
struct ExecuteRoutes: Sendable {
    private static let replayed = HTTPField.Name("idempotent-replayed")

    let executions: any ExecutionAPI
    let authenticator: Authenticator
    let maximumBody: Int

    var routes: [Route] {
        [
            Route(.post, "/execute", .execute, execute, audit: .executionCreated),
            Route(.post, "/execute_async", .executeAsync, executeAsync, audit: .executionCreated),
        ]
    }

    private func execute(_ request: Request, _ context: AppContext) async throws -> Response {
        let receivedAt = ContinuousClock.now
        if try Self.isStreamRequested(request) { return try await stream(request, receivedAt: receivedAt) }
        let command = try await parse(request, mode: .sync, receivedAt: receivedAt)
        let (result, isReplay) = try await executions.execute(command)
        Self.recordAudit(of: result.record, isReplay: isReplay)
        return Self.marked(ExecutionResponse(result: result, form: .result).response(), isReplay: isReplay)
    }

    private func executeAsync(_ request: Request, _ context: AppContext) async throws -> Response {
        let command = try await parse(request, mode: .async, receivedAt: .now)
        let (handle, isReplay) = try await executions.start(command)
        let record = handle.record
        Self.recordAudit(of: record, isReplay: isReplay)
        let body: JSONValue = [
            "task_id": .string(record.id.rawValue),
            "id": .string(record.id.rawValue),
            "status": .string(record.state.rawValue),
            "session_id": .string(record.session.rawValue),
            "created_at": .init(record.createdAt),
        ]
        return Self.marked(Response(json: body), isReplay: isReplay)
    }

    /// The events of a new execution, or those that a client has not got of one that it followed before.
    private func stream(_ request: Request, receivedAt: ContinuousClock.Instant) async throws -> Response {
        if let position = try EventPosition(lastEventOf: request) {
            // It began with another request.
            RequestAuditContext.record { $0.type = nil }
            let user = try await authenticator.user(request.headers)
            let handle = try await executions.handle(of: position.execution, owner: user)
            return try EventStream(handle: handle, position: position).response()
        }
        let command = try await parse(request, mode: .stream, receivedAt: receivedAt)
        let (handle, isReplay) = try await executions.start(command)
        Self.recordAudit(of: handle.record, isReplay: isReplay)
        let start = EventPosition(execution: handle.record.id)
        let response = try EventStream(handle: handle, position: start).response()
        return Self.marked(response, isReplay: isReplay)
    }

    /// Records the execution in the request's audit context, without its code.
    private static func recordAudit(of record: ExecutionRecord, isReplay: Bool) {
        RequestAuditContext.record {
            if isReplay { $0.type = nil }
            $0.resource = record.id.rawValue
            $0.session = record.session
            $0.vmID = record.vmID
            $0.details = ["language": .text(record.language), "mode": .text(record.mode.rawValue)]
        }
    }

    /// Whether the client asks for a stream of events.
    private static func isStreamRequested(_ request: Request) throws -> Bool {
        var query = FieldReader(queryOf: request)
        let stream = query.string("stream")
        try query.finish()
        let isAccepted = request.headers[.accept]?.lowercased().contains("text/event-stream") ?? false
        return isAccepted || stream == "true"
    }

    private static func marked(_ response: Response, isReplay: Bool) -> Response {
        var response = response
        if isReplay, let name = replayed { response.headers[name] = "true" }
        return response
    }

    // MARK: The request

    private func parse(
        _ request: Request,
        mode: ExecutionMode,
        receivedAt: ContinuousClock.Instant
    ) async throws -> ExecutionRequest {
        let body = try await AuthenticatedBody(of: request, upTo: maximumBody, authenticator)
        var reader = try BodyReader(body.bytes)
        let user = try await body.user(key: reader.string("api_key"))
        let claim = try IdempotencyClaim(of: request, path: mode == .async ? "/execute_async" : "/execute", reader)
        var command = try parse(&reader, user: user, mode: mode)
        command.receivedAt = receivedAt
        command.idempotency = claim
        return command
    }

    private func parse(_ reader: inout BodyReader, user: UserID, mode: ExecutionMode) throws -> ExecutionRequest {
        let command = reader.string("command")
        let code = reader.string("code")
        let session = reader.string("session_id")
        let language = reader.string("language") ?? "python"
        let timeout = reader.integer("timeout", in: Limits.timeoutSeconds)
        let vaults = reader.stringArray("vault_ids") ?? []
        let source = code ?? command
        if Language(name: language) == .bash, source?.utf8.contains(0) == true {
            reader.report(code == nil ? "command" : "code", "value_error", "A bash script cannot contain NUL")
        }
        RequestAuditContext.record { $0.session = session.flatMap { SessionID(rawValue: $0) } }
        try reader.finish()
        guard let source else { throw Self.missingSource }
        guard source.utf8.count <= Limits.sourceBytes else {
            throw APIError(.contentTooLarge, "The code is larger than \(Limits.sourceBytes) bytes")
        }
        guard let language = Language(name: language) else {
            let known = Language.allCases.map(\.rawValue).joined(separator: ", ")
            throw APIError(.badRequest, "Unsupported language '\(language.prefix(64))'. Use one of: \(known)")
        }
        if let vault = vaults.first { throw APIError(.notFound, "Vault '\(vault.prefix(64))' not found") }
        // An asynchronous call without a timeout may run as long as its VM lives.
        let seconds = timeout ?? (mode == .async ? nil : 60)
        return ExecutionRequest(
            session: try session.map(SessionID.init(named:)),
            owner: user,
            source: source,
            language: language,
            mode: mode,
            timeout: seconds.map { .seconds($0) }
        )
    }

    /// Clients that read results get one.
    private static var missingSource: APIError {
        let message = "Missing 'code' or 'command' field"
        return APIError(
            .badRequest,
            body: [
                "detail": .string(message), "stdout": "", "stderr": .string(message), "execution_time": .number(0),
                "cpu_time": .number(0),
            ]
        )
    }
}

extension IdempotencyClaim {
    private static let header = HTTPField.Name("idempotency-key")

    /// The claim of a request; nil without the header.
    ///
    /// The digest does not depend on the order and spacing of the fields, which a retry may change.
    /// - Throws: `ValidationFailure` for a key that is none.
    fileprivate init?(of request: Request, path: String, _ reader: BodyReader) throws {
        guard let name = Self.header, let key = request.headers[name] else { return nil }
        guard Limits.idempotencyKeyBytes.contains(key.utf8.count), key.utf8.allSatisfy({ (0x20...0x7e).contains($0) })
        else {
            throw ValidationFailure(problems: [
                .init(
                    type: "value_error",
                    location: ["header", "Idempotency-Key"],
                    message:
                        "The key must have 1 to \(Limits.idempotencyKeyBytes.upperBound) printable ASCII characters"
                )
            ])
        }
        let text = path + "\n" + reader.canonicalText(without: ["api_key"])
        self.init(key: key, requestHash: TextDigest.of(text))
    }
}
