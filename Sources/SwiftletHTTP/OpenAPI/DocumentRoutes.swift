// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import Hummingbird
import NIOCore
import SwiftletJSON

/// The API's description, as OpenAPI and as a page.
struct DocumentRoutes: Sendable {
    private static let document = Endpoint(method: .get, path: "/openapi.json", operation: .getDocument)
    private static let page = Endpoint(method: .get, path: "/docs", operation: .getDocumentation)

    private let document: ByteBuffer
    private let page = DocumentationPage()

    /// - Parameter endpoints: those of all other routes.
    init(_ endpoints: [Endpoint], version: String) {
        var buffer = ByteBuffer()
        OpenAPIDocument(endpoints + [Self.document, Self.page], version: version).json.write(to: &buffer)
        document = buffer
    }

    var routes: [Route] {
        [
            Route(Self.document) { [document] _, _ in
                Response(
                    status: .ok,
                    headers: [.contentType: "application/json", .cacheControl: "no-cache"],
                    body: ResponseBody(byteBuffer: document)
                )
            },
            Route(Self.page) { [page] _, _ in page.response },
        ]
    }
}

extension Operation {
    fileprivate static let getDocument = Operation(
        "getDocument",
        .server,
        "This description (OpenAPI 3.1)",
        access: .open,
        replies: [.ok("The description.", .map(of: .anything))]
    )

    fileprivate static let getDocumentation = Operation(
        "getDocumentation",
        .server,
        "This description, to be read in a browser",
        access: .open,
        replies: [Reply(.ok, "A page.", .page)]
    )
}
