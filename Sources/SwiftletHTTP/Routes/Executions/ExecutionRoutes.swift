// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import NIOPosix
import SwiftletCore
import SwiftletJSON
import SwiftletSessions
import SwiftletStore

/// Reads the records, outputs and events of executions, and cancels them.
struct ExecutionRoutes: Sendable {
    static let maximumWait = 60
    private static let nextCursor = HTTPField.Name("x-next-cursor")

    let executions: any ExecutionAPI
    let authenticator: Authenticator

    var routes: [Route] {
        [
            Route(.get, "/v1/executions", .listExecutions, list),
            Route(.get, "/v1/executions/{id}", .getExecution, get),
            Route(.get, "/v1/executions/{id}/output", .getOutput, output),
            Route(.get, "/v1/executions/{id}/events", .followExecution, events),
            Route(.post, "/v1/executions/{id}/cancel", .cancelExecution, cancel, audit: .executionCancelled),
        ]
    }

    /// `GET /v1/executions/`: the newest first.
    private func list(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        var query = FieldReader(queryOf: request)
        var filter = ExecutionStore.Filter(
            owner: user,
            limit: query.integer("limit", in: Limits.pageItems) ?? Defaults.pageItems
        )
        filter.session = query.parsed("session_id", "a session's id") { SessionID(rawValue: $0) }
        filter.states = query.parsed("status", Self.quotedNames(of: ExecutionState.allCases)) {
            ExecutionState(rawValue: $0)
        }
        .map { [$0] }
        filter.language = query.parsed("language", Self.quotedNames(of: Language.allCases)) {
            Language(name: $0)?.rawValue
        }
        filter.before = query.parsed("before", "an execution's id") { ExecutionID(rawValue: $0) }
        try query.finish()
        let records = try await executions.list(filter)
        var response = Response(json: .array(records.map { .object(ExecutionFields.ofRecord($0)) }))
        if records.count == filter.limit, let last = records.last, let name = Self.nextCursor {
            response.headers[name] = last.id.rawValue
        }
        return response
    }

    /// The values of an enumeration, for messages.
    private static func quotedNames<Value: RawRepresentable>(of values: [Value]) -> String
    where Value.RawValue == String {
        values.map { "'\($0.rawValue)'" }.joined(separator: ", ")
    }

    /// `GET /v1/executions/{id}`: with the output once it is over.
    private func get(_ request: Request, _ context: AppContext) async throws -> Response {
        let handle = try await requested(request, context)
        let result = ExecutionResult(handle)
        let record = result.record
        guard record.state.isFinal else { return Response(json: .object(ExecutionFields.ofRecord(record))) }
        return ExecutionResponse(result: result, form: .task).response()
    }

    /// `POST /v1/executions/{id}/cancel`: answers with the record; an execution that had ended is not changed.
    private func cancel(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let record = try await executions.cancel(try Self.id(context), owner: user)
        return Response(json: .object(ExecutionFields.ofRecord(record)))
    }

    /// `GET /v1/executions/{id}/events`: the events from the beginning, or from behind `Last-Event-ID`.
    private func events(_ request: Request, _ context: AppContext) async throws -> Response {
        let handle = try await requested(request, context)
        let id = handle.record.id
        let position = try EventPosition(lastEventOf: request) ?? EventPosition(execution: id)
        guard position.execution == id else {
            throw APIError(.badRequest, "Last-Event-ID is of execution \(position.execution)")
        }
        return try EventStream(handle: handle, position: position).response()
    }

    /// `GET /v1/executions/{id}/output?stream=stdout&offset=N&limit=N&wait=seconds`: the bytes as they are.
    private func output(_ request: Request, _ context: AppContext) async throws -> Response {
        let handle = try await requested(request, context)
        var query = FieldReader(queryOf: request)
        let names = Self.quotedNames(of: ExecutionStream.allCases)
        let stream = query.parsed("stream", names) { ExecutionStream(rawValue: $0) } ?? .stdout
        let offset = query.integer("offset", in: 0...(1 << 48)) ?? 0
        let limit = query.integer("limit", in: 1...(1 << 48)) ?? 1 << 48
        let wait = query.integer("wait", in: 0...Self.maximumWait) ?? 0
        try query.finish()
        let id = handle.record.id
        guard handle.record.outputExpiredAt == nil else { throw SessionError.outputExpired(id) }
        let log = handle.log(of: stream)
        let deadline = ContinuousClock.now + .seconds(wait)
        while log.count <= offset, ContinuousClock.now < deadline {
            let version = handle.version
            guard !handle.isFinal, log.count <= offset else { break }
            let remaining = (deadline - .now) / .milliseconds(1)
            await handle.waitForChange(after: version, within: .milliseconds(Int64(max(1, remaining))))
        }
        // Read before the log: if the execution is final now, the view below has all of its bytes.
        let isComplete = handle.isFinal
        let view = OutputView(log)
        guard offset <= view.count else {
            throw APIError(.rangeNotSatisfiable, "The \(stream) has \(view.count) bytes; offset is \(offset)")
        }
        let end = min(view.count, offset.addingReportingOverflow(limit).partialValue)
        return OutputResponse(view: view, range: offset..<max(offset, end), isComplete: isComplete).response
    }

    private func requested(_ request: Request, _ context: AppContext) async throws -> ExecutionHandle {
        let user = try await authenticator.user(request.headers)
        return try await executions.handle(of: try Self.id(context), owner: user)
    }

    private static func id(_ context: AppContext) throws -> ExecutionID {
        let text = try context.parameters.require("id")
        guard let id = ExecutionID(rawValue: text) else {
            throw SessionError.executionNotFound(String(text.prefix(64)))
        }
        return id
    }
}

/// A part of an output, as it is.
struct OutputResponse: Sendable {
    let view: OutputView
    let range: Range<Int>
    /// Whether the view has all bytes that there will be.
    let isComplete: Bool

    var response: Response {
        var headers: HTTPFields = [.contentType: "application/octet-stream", .contentLength: "\(range.count)"]
        let position = [
            "x-next-offset": "\(range.upperBound)", "x-complete": "\(isComplete && range.upperBound == view.count)",
            "x-dropped-bytes": "\(view.droppedBytes)",
        ]
        for (text, value) in position {
            if let name = HTTPField.Name(text) { headers[name] = value }
        }
        let (view, range) = (view, range)
        let body = ResponseBody.streamed(length: range.count) { write in
            try await view.forEachPiece(of: range) { try await write(ByteBuffer(bytes: $0)) }
        }
        return Response(status: .ok, headers: headers, body: body)
    }
}
