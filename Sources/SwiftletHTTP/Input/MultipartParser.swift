// SPDX-License-Identifier: Apache-2.0

/// Reads `multipart/form-data` as it arrives: bytes in, events out. Source: RFC 7578 and RFC 2046, 5.1.
///
/// Buffers no more than a part's headers, or the possible beginning of a boundary; the content passes through.
package struct MultipartParser: Sendable {
    package enum Event: Equatable, Sendable {
        /// A part begins. A file name that the part may have is ignored.
        case part(name: String)
        /// Content of the part.
        case content([UInt8])
        /// The part is complete.
        case partEnd
        /// The last boundary arrived; bytes behind it are ignored.
        case end
    }

    package struct Malformed: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    private enum State {
        /// Before the first boundary, where RFC 2046 allows any text.
        case preamble
        /// Behind a boundary: the end of its line, or `--`.
        case boundary
        case headers
        case content
        case end
    }

    private static let maximumHeaders = 16 * 1024
    private static let maximumPreamble = 16 * 1024
    private static let maximumPadding = 64
    private static let cr = UInt8(ascii: "\r")
    private static let dash = UInt8(ascii: "-")

    private let delimiter: [UInt8]
    private var state = State.preamble
    /// A boundary at the very beginning has no line before it.
    private var buffer: [UInt8] = [cr, UInt8(ascii: "\n")]
    private var start = 0
    private var skipped = 0

    /// - Parameter contentType: of the request; fails unless it is `multipart/form-data` with a boundary.
    package init(contentType: String?) throws(Malformed) {
        guard let contentType, contentType.lowercased().hasPrefix("multipart/form-data") else {
            throw Malformed(description: "The body must be multipart/form-data")
        }
        let boundary = HeaderParameters(contentType)["boundary"] ?? ""
        guard (1...256).contains(boundary.utf8.count), boundary.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) else {
            throw Malformed(description: "Content-Type needs a boundary of 1 to 256 printable characters")
        }
        delimiter = Array("\r\n--\(boundary)".utf8)
    }

    /// Whether the last boundary came.
    package var isComplete: Bool { state == .end }

    /// Adds bytes that arrived.
    package mutating func append(_ bytes: some Collection<UInt8>) {
        guard state != .end else { return }
        if start > 0 {
            buffer.removeFirst(start)
            start = 0
        }
        buffer.append(contentsOf: bytes)
    }

    /// The next event, or nil when more bytes are needed.
    ///
    /// - Throws: ``Malformed``; the parser must not be used afterwards.
    package mutating func next() throws(Malformed) -> Event? {
        while true {
            switch state {
            case .preamble:
                guard try skipPreamble() else { return nil }
            case .boundary:
                guard let event = try afterBoundary() else { return nil }
                if case .end = event { return .end }
            case .headers:
                return try headers()
            case .content:
                return content()
            case .end:
                return nil
            }
        }
    }

    private mutating func skipPreamble() throws(Malformed) -> Bool {
        let (found, plain) = search()
        start += plain
        skipped += plain
        guard skipped <= Self.maximumPreamble else { throw Malformed(description: "The body has no boundary") }
        guard found else { return false }
        start += delimiter.count
        state = .boundary
        return true
    }

    /// Returns `.end` behind the last boundary, `.partEnd` behind any other, nil when more bytes are needed.
    private mutating func afterBoundary() throws(Malformed) -> Event? {
        guard buffer.count - start >= 2 else { return nil }
        if buffer[start] == Self.dash, buffer[start + 1] == Self.dash {
            state = .end
            buffer = []
            start = 0
            return .end
        }
        let rest = buffer[start...]
        guard let line = rest.firstIndex(where: { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\t") }) else {
            guard rest.count <= Self.maximumPadding else {
                throw Malformed(description: "A boundary's line is too long")
            }
            return nil
        }
        guard line + 1 < buffer.count else { return nil }
        guard buffer[line] == Self.cr, buffer[line + 1] == UInt8(ascii: "\n") else {
            throw Malformed(description: "A boundary's line goes on behind the boundary")
        }
        // The line's end stays: headers may be none.
        start = line
        state = .headers
        return .partEnd
    }

    private mutating func headers() throws(Malformed) -> Event? {
        let end = Array("\r\n\r\n".utf8)
        let limit = min(buffer.count, start + Self.maximumHeaders)
        guard let found = Self.find(end, in: buffer, from: start, to: limit) else {
            guard buffer.count - start < Self.maximumHeaders else {
                throw Malformed(description: "A part's headers are larger than \(Self.maximumHeaders) bytes")
            }
            return nil
        }
        let text = String(decoding: buffer[start..<found], as: UTF8.self)
        start = found + end.count
        state = .content
        let disposition = text.split(separator: "\r\n").first { $0.lowercased().hasPrefix("content-disposition:") }
        guard let disposition, let name = HeaderParameters(String(disposition))["name"] else {
            throw Malformed(description: "A part has no Content-Disposition with a name")
        }
        return .part(name: name)
    }

    private mutating func content() -> Event? {
        let (found, plain) = search()
        if plain > 0 {
            defer { start += plain }
            return .content(Array(buffer[start..<(start + plain)]))
        }
        guard found else { return nil }
        start += delimiter.count
        state = .boundary
        return .partEnd
    }

    /// Searches the delimiter; returns whether it was found, and the number of bytes before it or before its possible beginning.
    private func search() -> (found: Bool, plain: Int) {
        if let index = Self.find(delimiter, in: buffer, from: start, to: buffer.count) { return (true, index - start) }
        // A beginning of it can only be at the end.
        let first = max(start, buffer.count - delimiter.count + 1)
        for index in first..<max(first, buffer.count) where delimiter.starts(with: buffer[index...]) {
            return (false, index - start)
        }
        return (false, buffer.count - start)
    }

    private static func find(_ pattern: [UInt8], in bytes: [UInt8], from start: Int, to end: Int) -> Int? {
        guard end - start >= pattern.count else { return nil }
        return bytes.withUnsafeBufferPointer { bytes in
            pattern.withUnsafeBufferPointer { pattern in
                var index = start
                let last = end - pattern.count
                while index <= last {
                    if bytes[index] == pattern[0] {
                        var length = 1
                        while length < pattern.count, bytes[index + length] == pattern[length] { length += 1 }
                        if length == pattern.count { return index }
                    }
                    index += 1
                }
                return nil
            }
        }
    }
}

/// The parameters of a header, `; name=value` or `; name="value"`.
struct HeaderParameters {
    private var values: [String: String] = [:]

    init(_ header: String) {
        var rest = Substring(header)
        while let semicolon = rest.firstIndex(of: ";") {
            rest = rest[rest.index(after: semicolon)...].drop { $0 == " " || $0 == "\t" }
            guard let equals = rest.firstIndex(where: { $0 == "=" || $0 == ";" }), rest[equals] == "=" else { continue }
            let name = rest[..<equals].lowercased()
            rest = rest[rest.index(after: equals)...]
            let value = Self.value(&rest)
            if values[name] == nil { values[name] = value }
        }
    }

    subscript(name: String) -> String? { values[name] }

    private static func value(_ rest: inout Substring) -> String {
        guard rest.first == "\"" else {
            let value = rest.prefix { $0 != ";" && $0 != " " }
            rest = rest[value.endIndex...]
            return String(value)
        }
        rest = rest.dropFirst()
        var value = ""
        while let character = rest.popFirst(), character != "\"" {
            if character == "\\", let escaped = rest.popFirst() {
                value.append(escaped)
            } else {
                value.append(character)
            }
        }
        return value
    }
}
