// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import NIOCore

/// The page that shows the API's description.
struct DocumentationPage: Sendable {
    var response: Response {
        Response(
            status: .ok,
            headers: [.contentType: "text/html; charset=utf-8"],
            body: .init(
                byteBuffer: .init(
                    string: "<!doctype html><title>Swiftlet</title><a href=\"/openapi.json\">openapi.json</a>"
                )
            )
        )
    }
}
