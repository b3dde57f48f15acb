// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import NIOCore
package import SwiftletJSON
import SwiftletSessions

/// An answer that is not a success.
struct APIError: Error {
    var status: HTTPResponse.Status
    var body: JSONValue
    var headers: HTTPFields = [:]

    /// `{"detail": "..."}`, which clients show to their users.
    init(_ status: HTTPResponse.Status, _ detail: String, headers: HTTPFields = [:]) {
        self.status = status
        self.headers = headers
        body = ["detail": .string(detail)]
    }

    init(_ status: HTTPResponse.Status, body: JSONValue) {
        self.status = status
        self.body = body
    }

    static let invalidKey = APIError(
        .unauthorized,
        "Invalid API key",
        headers: [.wwwAuthenticate: "Bearer"]
    )

    static let notAuthenticated = APIError(
        .unauthorized,
        "Not authenticated: send X-API-Key, Authorization: Bearer, or api_key in the body",
        headers: [.wwwAuthenticate: "Bearer"]
    )

    static func bodyTooLarge(limit: Int) -> APIError {
        APIError(.contentTooLarge, "The request's body is larger than \(limit) bytes")
    }

    /// Maps the session service's errors to HTTP.
    init(_ error: SessionError) {
        switch error {
        case .notFound, .noVM, .executionNotFound: self.init(.notFound, error.description)
        case .lifetime: self.init(.conflict, error.description)
        case .overloaded(_, let retryAfter):
            self.init(.serviceUnavailable, error.description, headers: [.retryAfter: String(retryAfter)])
        case .outputExpired: self.init(.gone, error.description)
        case .idempotencyMismatch:
            let location: [JSONValue] = ["header", "Idempotency-Key"]
            self =
                ValidationFailure(problems: [
                    .init(type: "value_error", location: location, message: error.description)
                ]).apiError
        case .admission(let error): self.init(error)
        case .noInterpreter: self.init(.badRequest, error.description)
        case .vmUnavailable, .shuttingDown:
            self.init(.serviceUnavailable, error.description, headers: [.retryAfter: "5"])
        }
    }

    /// The message, for users.
    var detail: String {
        if case .string(let text) = body["detail"] { text } else { status.reasonPhrase }
    }

    /// Maps errors of file operations to HTTP.
    init(_ error: FileError) {
        let status: HTTPResponse.Status =
            switch error.code {
            case .notFound, .notADirectory: .notFound
            case .isADirectory, .notRegular, .exists, .notEmpty, .wrongOffset, .busy, .other: .conflict
            case .noSpace: .init(code: 507, reasonPhrase: "Insufficient Storage")
            case .notPermitted: .forbidden
            case .nameTooLong, .tooManyLinks, .wrongSize, .archive: .badRequest
            case .tooLarge: .contentTooLarge
            case .vmLost: .serviceUnavailable
            }
        self.init(status, error.description)
        if error.code == .vmLost { headers[.retryAfter] = "1" }
        if error.code == .wrongOffset {
            body = ["detail": .string(error.description), "offset": .integer(error.size)]
        }
    }

    var response: Response {
        var buffer = ByteBuffer()
        body.write(to: &buffer)
        var headers = headers
        headers[.contentType] = "application/json"
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: buffer))
    }
}

/// Input that does not fit, in the shape of FastAPI's 422: one entry for each problem.
package struct ValidationFailure: Error {
    /// One thing that is wrong.
    package struct Problem: Equatable, Sendable {
        /// pydantic's name of the error, such as `int_parsing`.
        package var type: String
        /// The path to the value, such as `["body", "timeout"]`.
        package var location: [JSONValue]
        /// An English sentence for users.
        package var message: String
        /// The wrong value, if it is to be sent back.
        package var input: JSONValue?

        /// pydantic's type and message for a number outside of a range; nil when it lies in the range.
        static func outside(_ range: ClosedRange<Int>, _ number: Int) -> (type: String, message: String)? {
            if number < range.lowerBound {
                return ("greater_than_equal", "Input should be greater than or equal to \(range.lowerBound)")
            }
            if number > range.upperBound {
                return ("less_than_equal", "Input should be less than or equal to \(range.upperBound)")
            }
            return nil
        }
    }

    /// All that is wrong, at least one.
    package var problems: [Problem]

    var response: Response { apiError.response }

    var apiError: APIError {
        let details = problems.map { problem in
            var fields: [JSONValue.Field] = [
                .init(name: "type", value: .string(problem.type)),
                .init(name: "loc", value: .array(problem.location)),
                .init(name: "msg", value: .string(problem.message)),
            ]
            // Enough to recognise it; a large value is not sent back whole.
            if let input = problem.input, input.text.utf8.count <= 1_024 {
                fields.append(.init(name: "input", value: input))
            }
            return JSONValue.object(fields)
        }
        return APIError(.unprocessableContent, body: ["detail": .array(details)])
    }
}
