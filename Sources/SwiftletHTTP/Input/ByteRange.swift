// SPDX-License-Identifier: Apache-2.0

/// The range that a `Range` header requests of a representation. Source: RFC 9110, 14.1 and 14.2.
package enum ByteRange: Equatable, Sendable {
    /// No range, or one that a server may ignore: all of it.
    case whole
    case part(Range<Int>)
    /// It begins behind the content's end.
    case unsatisfiable

    /// - Parameters:
    ///   - header: such as `bytes=0-99`, `bytes=100-` or `bytes=-100`; several ranges are ignored.
    ///   - size: of the content, in bytes.
    package init(_ header: String?, size: Int) {
        self = .whole
        guard let header, header.hasPrefix("bytes="), !header.contains(",") else { return }
        let ends = header.dropFirst("bytes=".count).split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2 else { return }
        let first = Self.number(ends[0])
        let last = Self.number(ends[1])
        switch (ends[0].isEmpty, first, ends[1].isEmpty, last) {
        case (true, _, false, let count?):
            self = count == 0 || size == 0 ? .unsatisfiable : .part(max(0, size - count)..<size)
        case (false, let first?, true, _):
            self = first < size ? .part(first..<size) : .unsatisfiable
        case (false, let first?, false, let last?) where first <= last:
            self = first < size ? .part(first..<(min(last, size - 1) + 1)) : .unsatisfiable
        default:
            break
        }
    }

    /// Digits only; a number that is too large is as good as the largest.
    private static func number(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int(text) ?? Int.max
    }
}

/// The bytes of the file that an upload has. Source: RFC 9110, 14.4 (`Content-Range`).
package struct ContentRange: Equatable, Sendable {
    package let range: Range<Int>
    package let size: Int

    /// Fails unless it is `bytes FIRST-LAST/SIZE` with numbers that fit.
    package init?(_ header: String) {
        let fields = header.split(separator: " ")
        guard fields.count == 2, fields[0] == "bytes" else { return nil }
        let parts = fields[1].split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        let ends = parts[0].split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2, let first = Int(ends[0]), let last = Int(ends[1]), let size = Int(parts[1]),
            first >= 0, first <= last, last < size
        else { return nil }
        range = first..<(last + 1)
        self.size = size
    }
}
