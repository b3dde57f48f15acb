// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletJSON

/// The answers that are no success and look the same on all routes.
enum ErrorResponse: String, CaseIterable, Sendable {
    case badRequest = "BadRequest"
    case unauthorized = "Unauthorized"
    case forbidden = "Forbidden"
    case notFound = "NotFound"
    case conflict = "Conflict"
    case gone = "Gone"
    case tooLarge = "ContentTooLarge"
    case rangeNotSatisfiable = "RangeNotSatisfiable"
    case invalid = "Invalid"
    case tooManyRequests = "TooManyRequests"
    case unavailable = "Unavailable"
    case full = "InsufficientStorage"

    /// The errors of every operation with a JSON body.
    static let ofBodies: Set<ErrorResponse> = [.invalid, .tooLarge]

    var reply: Reply {
        switch self {
        case .badRequest: Reply(.badRequest, "The request cannot be what was meant; `detail` says why.", Self.errorBody)
        case .unauthorized:
            Reply(
                .unauthorized,
                "No key or token, or one that opens nothing.",
                Self.errorBody,
                headers: [Header("WWW-Authenticate", "The scheme to use.", isRequired: true)]
            )
        case .forbidden: Reply(.forbidden, "Not allowed, by the plan or by the guest.", Self.errorBody)
        case .notFound: Reply(.notFound, "There is no such thing, or it is somebody else's.", Self.errorBody)
        case .conflict: Reply(.conflict, "It contradicts what is there now.", Self.conflictBody)
        case .gone: Reply(.gone, "It is not kept any more.", Self.errorBody)
        case .tooLarge: Reply(.contentTooLarge, "The body, or what it asks for, is too large.", Self.errorBody)
        case .rangeNotSatisfiable: Reply(.rangeNotSatisfiable, "It begins behind the end.", Self.errorBody)
        case .invalid:
            Reply(.unprocessableContent, "Some of the input does not fit.", .json(Self.validationError))
        case .tooManyRequests:
            Reply(
                .tooManyRequests,
                "More than the plan allows, or than one address may.",
                Self.limitBody,
                headers: [.retryAfter]
            )
        case .unavailable:
            Reply(
                .serviceUnavailable,
                "The server cannot take it at the moment.",
                Self.errorBody,
                headers: [.retryAfter]
            )
        case .full: Reply(.init(code: 507), "The guest's disk is full.", Self.errorBody)
        }
    }

    private static let errorBody = Content.json(
        .named("Error", .object(["detail": .string("What is wrong, and what to do.")])),
        example: ["detail": "Not authenticated: send X-API-Key, Authorization: Bearer, or api_key in the body"]
    )

    private static let conflictBody = Content.json(
        .named(
            "ConflictError",
            .object(
                ["detail": .string("What is wrong, and what to do.")],
                optional: ["offset": .count("Bytes that a partial upload has.")]
            )
        )
    )

    private static let limitBody = Content.json(
        .named(
            "LimitError",
            .object(
                ["detail": .string("Which limit it was.")],
                optional: ["retry_after": .integer("Seconds to wait, as in `Retry-After`.", 1...Int(Int32.max))]
            )
        )
    )

    private static let validationError = Schema.named(
        "HTTPValidationError",
        .object(["detail": .array(of: validationProblem, "One entry for each problem.")])
    )

    private static let validationProblem = Schema.named(
        "ValidationError",
        .object(
            [
                "loc": .array(
                    of: .any([.string(), .integer()]),
                    "Where: `body`, `query` or `header`, then the field."
                ),
                "msg": .string("What is wrong, for people."),
                "type": .string("What is wrong, for programs."),
            ],
            optional: ["input": .anything.with("description", "The value, if it is small.")]
        )
    )
}

extension Header {
    static let retryAfter = Header("Retry-After", "Seconds to wait.", .count(), isRequired: true)
    static let requestID = Header("x-request-id", "The request's id, as in the log.", isRequired: true)

    /// The headers of responses to users of limited plans.
    static let rateLimits = [
        Header("RateLimit-Limit", "Requests that may come at once.", .count()),
        Header("RateLimit-Remaining", "Requests that may come now.", .count()),
        Header("RateLimit-Reset", "Seconds until the limit is whole.", .count()),
    ]
}
