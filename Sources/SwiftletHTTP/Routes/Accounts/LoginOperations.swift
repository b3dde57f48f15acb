// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletCore
import SwiftletJSON

extension Operation {
    static let token = Operation(
        "createToken",
        .logIn,
        "Exchanges an e-mail address and a password for a token",
        "OAuth2's password grant (RFC 6749, 4.3). After five wrong passwords an account must wait, after twenty an address.",
        access: .open,
        body: .form(
            .named(
                "TokenRequest",
                .object(
                    ["username": .string("The e-mail address."), "password": .string()],
                    optional: ["grant_type": .word(["password"])]
                )
            )
        ),
        replies: [
            .ok(
                "A token for an hour.",
                .named(
                    "Token",
                    .object([
                        "access_token": .string(), "token_type": .word(["bearer"]), "expires_in": .count("Seconds."),
                    ])
                )
            ),
            Reply(
                .badRequest,
                "The password is wrong, or it is another grant.",
                .json(
                    .named(
                        "TokenError",
                        .object([
                            "error": .word(["invalid_grant", "unsupported_grant_type"]), "error_description": .string(),
                            "detail": .string(),
                        ])
                    )
                )
            ),
        ],
        refusals: [.tooManyRequests, .unavailable]
    )

    static let startLogin = Operation(
        "startLogin",
        .logIn,
        "Begins a command line's log-in",
        "What `instavm login` calls (PKCE, RFC 7636): its user opens `login_url` in a browser on the same machine.",
        access: .open,
        body: .json(
            .named(
                "LoginRequest",
                .object(
                    [
                        "state": .string("Goes back to the caller.", length: Limits.loginStateBytes).with(
                            "pattern",
                            "^[!-~]+$"
                        ),
                        "code_challenge": .string("A SHA-256 in base64url.").with("pattern", "^[A-Za-z0-9_-]{43}$"),
                        "code_challenge_method": .word(["S256"]),
                        "redirect_uri": .string("A port of the caller's own machine.")
                            .with(
                                "pattern",
                                #"^http://(127\.0\.0\.1|\[::1\]|localhost)(:[1-9][0-9]{0,3})?(/[A-Za-z0-9_-]*)?$"#
                            ),
                    ],
                    optional: ["hostname": .string("What the machine is called.").nullable]
                )
            )
        ),
        replies: [
            .ok(
                "Where to log in.",
                .named(
                    "Login",
                    .object(["pairing_id": .string(), "login_url": .string(), "expires_in": .count("Seconds.")])
                )
            )
        ],
        refusals: [.badRequest, .tooManyRequests, .unavailable]
    )

    static let loginPage = Operation(
        "getLoginPage",
        .logIn,
        "The log-in's page, for a browser",
        access: .open,
        parameters: [.authorization],
        replies: [Reply(.ok, "A form.", .page), over]
    )

    static let confirmLogin = Operation(
        "confirmLogin",
        .logIn,
        "The page's form",
        access: .open,
        parameters: [.authorization],
        body: .form(.named("LoginForm", .object(["email": .string(), "password": .string()]))),
        replies: [
            Reply(
                .seeOther,
                "The browser carries a code to the command line.",
                headers: [Header("Location", "The command line's own port.", isRequired: true)]
            ),
            Reply(.unauthorized, "The e-mail or the password is wrong: the form again.", .page),
            Reply(.forbidden, "The form was sent from another site's page.", .page),
            over,
            Reply(.tooManyRequests, "Too many attempts: the form again.", .page, headers: [.retryAfter]),
            Reply(
                .serviceUnavailable,
                "It cannot be checked at the moment: the form again.",
                .page,
                headers: [.retryAfter]
            ),
        ]
    )

    static let exchangeCode = Operation(
        "exchangeLoginCode",
        .logIn,
        "Exchanges a log-in's code for an API key",
        access: .open,
        body: .json(
            .named(
                "LoginExchange",
                .object(["pairing_id": .string(), "code": .string(), "code_verifier": .string()])
            )
        ),
        replies: [
            .ok(
                "A key, named after the machine.",
                .named(
                    "LoginResult",
                    .object([
                        "api_key": .string(),
                        "user": .object(["id": .integer(), "email": .string(), "name": .string()]),
                    ])
                )
            )
        ],
        refusals: [.badRequest, .conflict, .tooManyRequests, .unavailable]
    )

    private static let over = Reply(.notFound, "There is no such log-in, or its time is over.", .page)
}

extension Parameter {
    fileprivate static let authorization = path("id", "The log-in's id.", .string())
}

extension Content {
    static let page = Content(types: [("text/html", .string())])
}
