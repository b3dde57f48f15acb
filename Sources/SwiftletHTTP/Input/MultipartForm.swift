// SPDX-License-Identifier: Apache-2.0

/// The fields of a multipart form as they arrive, except one part that is too large to be kept: the file.
package struct MultipartForm: Sendable {
    /// An event of the file's part.
    package enum Event: Equatable, Sendable {
        case fileStart
        case fileContent([UInt8])
    }

    private static let maximumField = 16 * 1024
    private static let maximumParts = 32

    private let fileName: String
    private var parser: MultipartParser
    private var partCount = 0
    private var currentPart: String?
    /// The fields that have arrived.
    package private(set) var fields = FieldReader(at: .body)

    /// - Parameters:
    ///   - contentType: of the request.
    ///   - fileName: the name of the file's part.
    /// - Throws: `MultipartParser.Malformed` unless the type is `multipart/form-data` with a boundary.
    package init(contentType: String?, fileName: String = "file") throws(MultipartParser.Malformed) {
        parser = try MultipartParser(contentType: contentType)
        self.fileName = fileName
    }

    /// Whether the last boundary arrived.
    package var isComplete: Bool { parser.isComplete }

    /// Adds bytes that arrived.
    package mutating func append(_ bytes: some Collection<UInt8>) {
        parser.append(bytes)
    }

    /// The next event of the file, or nil when more bytes are needed.
    ///
    /// - Throws: `MultipartParser.Malformed`; the form must not be used afterwards.
    package mutating func next() throws(MultipartParser.Malformed) -> Event? {
        while let event = try parser.next() {
            switch event {
            case .part(let name):
                partCount += 1
                guard partCount <= Self.maximumParts else {
                    throw .init(description: "The form has more than \(Self.maximumParts) parts")
                }
                currentPart = name
                if name == fileName { return .fileStart }
                fields.set(name)
            case .content(let bytes):
                guard let currentPart else { continue }
                if currentPart == fileName { return .fileContent(bytes) }
                guard fields.append(bytes, to: currentPart) <= Self.maximumField else {
                    throw .init(description: "A field of the form is larger than \(Self.maximumField) bytes")
                }
            case .partEnd:
                currentPart = nil
            case .end:
                break
            }
        }
        return nil
    }
}
