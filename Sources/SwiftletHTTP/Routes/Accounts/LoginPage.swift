// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import NIOCore

/// The page on which a user logs in for a device. Plain HTML: it loads nothing and runs no script.
struct LoginPage {
    private static let page = HTMLTemplate(PackageResources.login_html)
    private static let style = String(decoding: HTMLTemplate.part(PackageResources.login_css), as: UTF8.self)
    private static let form = HTMLTemplate(HTMLTemplate.part(PackageResources.login_form_html))
    private static let problem = HTMLTemplate(HTMLTemplate.part(PackageResources.login_problem_html))
    private static let message = HTMLTemplate(HTMLTemplate.part(PackageResources.login_message_html))

    /// The name that the device gave itself.
    var device: String
    /// Why the last attempt failed; nil the first time.
    var problem: String?
    var email = ""
    /// Where the browser is sent after a log-in. The policy must name it, since `form-action` applies to a form's redirects too.
    var redirect: LoopbackRedirect?

    func response(_ status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        let body = Self.form.filled([
            "device": .text(device),
            "email": .text(email),
            "problem": .markup(problem.map { Self.problem.filled(["problem": .text($0)]) } ?? ""),
        ])
        let formAction = redirect.map { "'self' \(Self.source($0))" } ?? "'self'"
        return Self.response(status, body: body, headers: headers, formAction: formAction)
    }

    /// A page with a message and no form.
    static func message(_ status: HTTPResponse.Status, _ text: String) -> Response {
        response(status, body: message.filled(["message": .text(text)]), headers: [:], formAction: "'none'")
    }

    private static func response(
        _ status: HTTPResponse.Status,
        body: String,
        headers: HTTPFields,
        formAction: String
    ) -> Response {
        let page = page.filled(["style": .markup(style), "body": .markup(body)])
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
}
