// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import NIOCore

/// The page on which somebody logs in for a device. Plain HTML: nothing is loaded, nothing runs.
struct LoginPage {
    /// What the device calls itself.
    var device: String
    /// What went wrong before; nil the first time.
    var problem: String?
    var email = ""
    /// Where the browser goes when all is well; the policy must name it, since it holds for where a form leads to as well.
    var redirect: LoopbackRedirect?

    func response(_ status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        let problem = problem.map { "<p class=\"problem\" role=\"alert\">\(Self.escaped($0))</p>" } ?? ""
        return Self.response(
            status,
            body: """
                <h1>Log in to Swiftlet</h1>
                <p>A command line on <strong>\(Self.escaped(device))</strong> asks for an API key of yours, with all your rights. \
                Log in only if you have just started it yourself.</p>
                \(problem)
                <form method="post">
                <p><label>E-mail<br><input name="email" type="email" autocomplete="username" required autofocus \
                value="\(Self.escaped(email))"></label></p>
                <p><label>Password<br><input name="password" type="password" autocomplete="current-password" required></label></p>
                <p><button>Log in and give it a key</button></p>
                </form>
                """,
            headers: headers,
            formAction: redirect.map { "'self' \(Self.source($0))" } ?? "'self'"
        )
    }

    /// A page that only says something.
    static func message(_ status: HTTPResponse.Status, _ text: String) -> Response {
        response(status, body: "<h1>Swiftlet</h1>\n<p>\(escaped(text))</p>", headers: [:], formAction: "'none'")
    }

    private static func response(
        _ status: HTTPResponse.Status,
        body: String,
        headers: HTTPFields,
        formAction: String
    ) -> Response {
        let page = """
            <!doctype html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
            <title>Swiftlet</title>
            <style>body{font:16px sans-serif;max-width:26rem;margin:4rem auto;padding:0 1rem}
            input{font:inherit;width:100%;padding:.4rem;box-sizing:border-box}button{font:inherit;padding:.4rem 1rem}
            .problem{color:#a00}</style></head>
            <body>
            \(body)
            </body></html>

            """
        var headers = headers
        headers[.contentType] = "text/html; charset=utf-8"
        headers[.cacheControl] = "no-store"
        headers[.contentSecurityPolicy] =
            "default-src 'none'; style-src 'unsafe-inline'; form-action \(formAction); frame-ancestors 'none'; base-uri 'none'"
        headers[.xContentTypeOptions] = "nosniff"
        for (name, value) in [("X-Frame-Options", "DENY"), ("Referrer-Policy", "same-origin")] {
            if let name = HTTPField.Name(name) { headers[name] = value }
        }
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(string: page)))
    }

    /// Policies cannot name an IPv6 address.
    private static func source(_ redirect: LoopbackRedirect) -> String {
        redirect.origin.contains("[") ? "http:" : redirect.origin
    }

    private static func escaped(_ text: String) -> String {
        text.reduce(into: "") { escaped, character in
            switch character {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "\"": escaped += "&quot;"
            case "'": escaped += "&#39;"
            default: escaped.append(character)
            }
        }
    }
}
