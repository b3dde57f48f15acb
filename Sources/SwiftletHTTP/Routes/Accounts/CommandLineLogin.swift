// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import SwiftletAccounts
import SwiftletCore
import SwiftletJSON
import SwiftletStore

/// Gives a command line a key: it starts a CLI authorization, the user logs in with a browser on the same machine, the browser is redirected
/// with a code to the command line's port, and the command line exchanges code and verifier for a key (PKCE, RFC 7636).
struct CommandLineLogin: Sendable {
    /// Requests from one address, to the two routes that command lines call.
    private static let rate = Plan.Rate(perMinute: 30, burst: 30)
    private static let path = "/api/cli-auth/login"

    let accounts: AccountServices
    let addresses: ClientAddressResolver

    var routes: [Route] {
        [
            Route(.post, "/api/cli-auth/start", .startLogin, start, audit: .pairingStarted),
            Route(.get, Self.path + "/{id}", .loginPage, page),
            Route(.post, Self.path + "/{id}", .confirmLogin, confirm, audit: .loggedIn),
            Route(.post, "/api/cli-auth/exchange", .exchangeCode, exchange, audit: .pairingExchanged),
        ]
    }

    /// `POST /api/cli-auth/start`
    private func start(_ request: Request, _ context: AppContext) async throws -> Response {
        try await charge(request, context)
        var reader = try BodyReader(try await request.collected(upTo: Limits.loginFormBytes))
        let start = CLIAuthorizationRequest(&reader)
        try reader.finish()
        guard let start, let base = accounts.publicURL ?? Self.base(of: request) else {
            throw APIError(.badRequest, "The Host header must be the server's name")
        }
        let clientAddress = addresses.clientAddress(of: request, context)
        if case .tooMany(let limit, let retryAfter) = try await accounts.cliAuthorizations.insert(
            start.authorization,
            from: clientAddress
        ) {
            let refusal = RateDecision.refusal(limit: limit, retryAfter: retryAfter)
            throw APIError.tooManyRequests("Too many log-ins are under way", refusal)
        }
        return Response(json: [
            "pairing_id": .string(start.authorization.id),
            "login_url": .string("\(base)\(Self.path)/\(start.authorization.id)"),
            "expires_in": .integer(Int(CLIAuthorizationStore.life)),
        ])
    }

    /// The page for the browser.
    private func page(_ request: Request, _ context: AppContext) async throws -> Response {
        guard let authorization = try await accounts.cliAuthorizations.waiting(try context.parameters.require("id"))
        else {
            return Self.over
        }
        return LoginPage(device: authorization.device, redirect: LoopbackRedirect(authorization.redirectURI)).response()
    }

    /// The page's form.
    private func confirm(_ request: Request, _ context: AppContext) async throws -> Response {
        guard isFromOurPage(request) else {
            return LoginPage.message(.forbidden, "This form must be sent from the server's own page.")
        }
        var form = FieldReader(form: try await request.collected(upTo: Limits.loginFormBytes))
        let email = form.requiredString("email")
        let password = form.requiredString("password")
        try form.finish()
        guard let authorization = try await accounts.cliAuthorizations.waiting(try context.parameters.require("id")),
            let redirect = LoopbackRedirect(authorization.redirectURI)
        else { return Self.over }
        var page = LoginPage(
            device: authorization.device,
            email: String(email.prefix(Limits.emailBytes)),
            redirect: redirect
        )
        let account: Account?
        do {
            let clientAddress = addresses.clientAddress(of: request, context)
            account = try await accounts.logIn(email: email, password: password, from: clientAddress)
        } catch let error as APIError {
            page.problem = error.detail
            return page.response(error.status, headers: error.headers)
        }
        guard let account else {
            page.problem = "The e-mail or the password is wrong."
            return page.response(.unauthorized)
        }
        guard let code = try await accounts.cliAuthorizations.confirm(authorization.id, by: account) else {
            return Self.over
        }
        return Response(
            status: .seeOther,
            headers: [.location: redirect.location(state: authorization.state, code: code), .cacheControl: "no-store"]
        )
    }

    /// `POST /api/cli-auth/exchange`
    private func exchange(_ request: Request, _ context: AppContext) async throws -> Response {
        try await charge(request, context)
        var reader = try BodyReader(try await request.collected(upTo: Limits.loginFormBytes))
        let id = reader.requiredString("pairing_id") ?? ""
        let code = reader.requiredString("code") ?? ""
        let verifier = reader.requiredString("code_verifier") ?? ""
        try reader.finish()
        guard
            let (account, authorization) = try await accounts.cliAuthorizations.exchange(
                id,
                code: code,
                verifier: verifier
            )
        else { throw APIError(.badRequest, "The code is wrong, used or older than 5 minutes; log in again") }
        RequestAuditContext.record {
            $0.user = account.id
            $0.credential = "pairing"
        }
        let (text, _) = try await accounts.issueKey(for: account.id, label: "CLI - \(authorization.device)")
        var response = Response(json: [
            "api_key": .string(text),
            "user": [
                "id": .integer(Int(account.id.rawValue)), "email": .string(account.email),
                "name": .string(account.name),
            ],
        ])
        response.headers[.cacheControl] = "no-store"
        return response
    }

    private static var over: Response {
        LoginPage.message(
            .notFound,
            "There is no such log-in, or its time is over. Start it again on the command line."
        )
    }

    private func charge(_ request: Request, _ context: AppContext) async throws {
        let clientAddress = addresses.clientAddress(of: request, context)
        do {
            try await accounts.failingClosed {
                try await accounts.limiter.charge(clientAddress, for: "cli-auth", Self.rate)
            }
        } catch let error as APIError where error.status == .tooManyRequests {
            accounts.countRefusal(by: "login")
            throw error
        }
    }

    /// The URL that the `Host` header gives; nil when that is not a valid name.
    private static func base(of request: Request) -> String? {
        guard let host = request.head.authority, (1...255).contains(host.utf8.count) else { return nil }
        let isName = host.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
            default:
                [UInt8(ascii: "."), UInt8(ascii: ":"), UInt8(ascii: "-"), UInt8(ascii: "["), UInt8(ascii: "]")]
                    .contains(byte)
            }
        }
        return isName ? "http://\(host)" : nil
    }

    /// Whether the form was sent from the server's own page, as far as the browser's headers tell. Another site does not know the
    /// user's password; this prevents it from logging the browser in as another user.
    private func isFromOurPage(_ request: Request) -> Bool {
        if let name = HTTPField.Name("Sec-Fetch-Site"), let site = request.headers[name], site != "same-origin" {
            return false
        }
        guard let origin = request.headers[.origin] else { return true }
        let host = origin.split(separator: "://", maxSplits: 1).last.map(String.init)
        return host == request.head.authority || origin == accounts.publicURL.map(Self.origin)
    }

    private static func origin(_ url: String) -> String {
        url.split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false).prefix(3).joined(separator: "/")
    }
}

/// The validated body of `POST /api/cli-auth/start`.
private struct CLIAuthorizationRequest {
    let authorization: CLIAuthorization

    /// Reports problems to the reader, and fails if there are any.
    init?(_ reader: inout BodyReader) {
        let state = reader.requiredString("state")
        let challenge = reader.requiredString("code_challenge")
        let method = reader.requiredString("code_challenge_method")
        let redirect = reader.requiredString("redirect_uri")
        let device = reader.string("hostname")
        guard let state, let challenge, let method, let redirect else { return nil }
        let isText = state.utf8.allSatisfy { (0x21...0x7e).contains($0) }
        if !Limits.loginStateBytes.contains(state.utf8.count) || !isText {
            reader.report(
                "state",
                "value_error",
                "The state must have 1 to \(Limits.loginStateBytes.upperBound) visible ASCII characters"
            )
        } else if method != "S256" {
            reader.report("code_challenge_method", "literal_error", "Input should be 'S256'")
        } else if challenge.utf8.count != 43 || !challenge.utf8.allSatisfy(Self.isBase64URL) {
            reader.report(
                "code_challenge",
                "value_error",
                "The challenge must be a SHA-256 in base64url without padding"
            )
        } else if LoopbackRedirect(redirect) == nil {
            reader.report(
                "redirect_uri",
                "value_error",
                "It must lead to this machine: http://127.0.0.1:PORT/PATH, [::1] or localhost, without query"
            )
        } else {
            authorization = CLIAuthorization(
                state: state,
                challenge: challenge,
                redirectURI: redirect,
                device: Self.shown(device ?? "")
            )
            return
        }
        return nil
    }

    /// A device's name in printable ASCII, for display.
    private static func shown(_ name: String) -> String {
        let plain = String(
            name.unicodeScalars.prefix(100).map { (0x20...0x7e).contains($0.value) ? Character($0) : "?" }
        )
        return plain.isEmpty ? "an unnamed machine" : plain
    }

    private static func isBase64URL(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "-"), UInt8(ascii: "_"): true
        default: false
        }
    }
}
