// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletAccounts
import SwiftletCore
import SwiftletJSON

/// `POST /token`: OAuth2's password grant (RFC 6749, 4.3).
struct TokenRoute: Sendable {
    let accounts: AccountServices
    let addresses: ClientAddressResolver

    var routes: [Route] { [Route(.post, "/token", .token, token, audit: .loggedIn)] }

    private func token(_ request: Request, _ context: AppContext) async throws -> Response {
        var form = FieldReader(form: try await request.collected(upTo: Limits.loginFormBytes))
        let email = form.requiredString("username")
        let password = form.requiredString("password")
        let grant = form.string("grant_type") ?? "password"
        try form.finish()
        guard grant == "password" else {
            throw Self.refusal("unsupported_grant_type", "The grant_type must be 'password'")
        }
        let clientAddress = addresses.clientAddress(of: request, context)
        guard let account = try await accounts.logIn(email: email, password: password, from: clientAddress) else {
            throw Self.refusal("invalid_grant", "Incorrect username or password")
        }
        var response = Response(json: [
            "access_token": .string(try await accounts.tokens.token(for: account)),
            "token_type": "bearer",
            "expires_in": .integer(TokenIssuer.life),
        ])
        response.headers[.cacheControl] = "no-store"
        return response
    }

    /// An error in the form of OAuth2 (RFC 6749, 5.2), with the `detail` that all our errors have.
    private static func refusal(_ error: String, _ description: String) -> APIError {
        let description = JSONValue.string(description)
        let body: JSONValue = ["error": .string(error), "error_description": description, "detail": description]
        var refusal = APIError(.badRequest, body: body)
        refusal.headers[.cacheControl] = "no-store"
        return refusal
    }
}
