// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletAccounts
import SwiftletCore
import SwiftletJSON

/// Authenticates the requests of all routes that act for a user, and charges them to the rate limit of the user's plan.
struct Authenticator: Sendable {
    let accounts: AccountServices

    /// The user of a request. The request is charged to the user's rate limit even if it fails later.
    ///
    /// A key in a header takes precedence over one in the body; if it is wrong, the other is not tried.
    /// - Throws: `APIError`: 401 without a credential, with a wrong one and for a disabled user, 429 over the plan's rate, 503 when
    ///   the database cannot be read.
    func user(_ headers: HTTPFields, bodyKey: String? = nil) async throws -> UserID {
        try await principal(headers, bodyKey: bodyKey).user
    }

    /// As ``user(_:bodyKey:)``, with the user's account and plan.
    func principal(_ headers: HTTPFields, bodyKey: String? = nil) async throws -> Principal {
        guard let credential = Self.headerCredential(headers) ?? bodyKey else { throw APIError.notAuthenticated }
        do {
            return try await accounts.failingClosed { try await principal(credential) }
        } catch let error as APIError where error.status == .unauthorized {
            RequestAuditContext.record { $0.isCredentialRefused = true }
            throw error
        }
    }

    private func principal(_ credential: String) async throws -> Principal {
        let (account, proof) = try await account(credential)
        guard !account.isDisabled else {
            RequestAuditContext.record { $0.owner = account.id }
            throw APIError.accountDisabled
        }
        let plan = try accounts.lookup.plans.plan(named: account.planName)
        let principal = Principal(account: account, plan: plan, credential: proof)
        RequestAuditContext.record { $0.set(principal) }
        try await charge(account, plan)
        return principal
    }

    /// The name of a user's limit on requests.
    static func requests(of user: UserID) -> String { "request:\(user)" }

    private func account(_ credential: String) async throws -> (Account, Principal.Credential) {
        if TokenIssuer.isToken(credential) {
            guard let token = await accounts.tokens.read(credential),
                let account = try await accounts.lookup.account(token.user),
                account.tokenGeneration == token.generation
            else { throw APIError.invalidToken }
            return (account, .token)
        }
        guard let owner = try await accounts.lookup.owner(ofKey: credential) else { throw APIError.invalidKey }
        accounts.uses.record(owner.keyID)
        return (owner.account, .key(owner.keyID))
    }

    private func charge(_ account: Account, _ plan: Plan) async throws {
        guard let rate = plan.requests else { return }
        let decision = try await accounts.limiter.charge(Self.requests(of: account.id), rate)
        RateLimitRecord.current?.record(decision)
        guard !decision.isAdmitted else { return }
        accounts.countRefusal(by: "requests")
        let reason = "Rate limit exceeded: the \(plan.name) plan has \(rate.perMinute) requests per minute"
        throw APIError.tooManyRequests(reason, decision)
    }

    /// Whether a header carries a credential, a wrong one included.
    static func hasCredential(_ headers: HTTPFields) -> Bool { headerCredential(headers) != nil }

    private static func headerCredential(_ headers: HTTPFields) -> String? {
        if let name = HTTPField.Name("X-API-Key"), let key = headers[name], !key.isEmpty { return key }
        guard let authorization = headers[.authorization] else { return nil }
        let parts = authorization.split(separator: " ", maxSplits: 1)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
        return String(parts[1])
    }
}

extension APIError {
    static let invalidToken = APIError(
        .unauthorized,
        "Invalid or expired token: get another with POST /token",
        headers: [.wwwAuthenticate: "Bearer error=\"invalid_token\""]
    )

    static let accountDisabled = APIError(
        .unauthorized,
        "This account is disabled; the server's operator can enable it",
        headers: [.wwwAuthenticate: "Bearer"]
    )

    static let admissionUnavailable = APIError(
        .serviceUnavailable,
        "The server cannot check accounts and rate limits at the moment, so it takes no requests; try again soon",
        headers: [.retryAfter: "5"]
    )

    /// A 429 with the headers and fields that tell a client when to retry.
    static func tooManyRequests(_ reason: String, _ limit: RateDecision) -> APIError {
        let seconds = max(1, Int(limit.retryAfter.rounded(.up)))
        var error = APIError(
            .tooManyRequests,
            body: ["detail": .string("\(reason); try again in \(seconds) s"), "retry_after": .integer(seconds)]
        )
        error.headers = limit.headers
        error.headers[.retryAfter] = String(seconds)
        return error
    }
}
