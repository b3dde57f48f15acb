// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

/// The page that shows the API's description in a browser, and sends requests. It is one response: the page loads nothing from
/// elsewhere, and its policy lets it run no other script than its own.
struct DocumentationPage: Sendable {
    private let headers: HTTPFields
    private let body: ByteBuffer

    init() {
        let script = HTMLTemplate.part(PackageResources.documentation_js)
        let style = HTMLTemplate.part(PackageResources.documentation_css)
        let policy = [
            "default-src 'none'", "script-src \(Self.source(script))", "style-src \(Self.source(style))",
            "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        ]
        headers = [
            .contentType: "text/html; charset=utf-8",
            .cacheControl: "no-cache",
            .contentSecurityPolicy: policy.joined(separator: "; "),
            .xContentTypeOptions: "nosniff",
        ]
        let page = HTMLTemplate(PackageResources.documentation_html).filled([
            "style": .markup(String(decoding: style, as: UTF8.self)),
            "script": .markup(String(decoding: script, as: UTF8.self)),
        ])
        body = ByteBuffer(string: page)
    }

    var response: Response {
        Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: body))
    }

    /// The source expression of an inline script or style in a content security policy: its hash.
    private static func source(_ content: [UInt8]) -> String {
        "'sha256-\(Data(SHA256.hash(data: content)).base64EncodedString())'"
    }
}
