// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import SwiftletJSON

/// Takes an execution's rich results out of the bytes of `Channel.results`.
///
/// The bytes come from a guest, so that they may be anything: what is no bundle, or over a bound, is counted and left out.
package struct ResultDecoder: Sendable {
    private enum State {
        /// The bytes of a record's length that have come.
        case length([UInt8])
        case record([UInt8], left: Int)
        /// A record that is left out: so many bytes of it are to come.
        case skipped(left: Int)
    }

    /// A record as short as this is read even when nothing more may be kept: it may count what the guest left out.
    private static let shortRecord = 64
    private static let maximumCount = 1 << 40

    private var state = State.length([])
    private var count = 0
    private var bytes = 0
    /// Results that were left out, by the guest or here.
    package private(set) var dropped = 0

    package init() {}

    /// Takes bytes that arrived, however they were cut.
    ///
    /// - Returns: the bundles that they complete, in order: each a JSON object of one line with `type` (`execute_result` or
    ///   `display_data`), `data` (by MIME type: texts, and any JSON for JSON types) and `metadata` (an object).
    package mutating func append(_ bytes: some Sequence<UInt8>) -> [String] {
        var bundles: [String] = []
        var rest = Array(bytes)[...]
        while !rest.isEmpty {
            switch state {
            case .length(let start): takeLength(start, &rest)
            case .skipped(let left):
                let taken = min(left, rest.count)
                rest = rest.dropFirst(taken)
                state = taken == left ? .length([]) : .skipped(left: left - taken)
            case .record(var record, let left):
                // The state must not hold a second reference while the record grows.
                state = .length([])
                let piece = rest.prefix(left)
                record += piece
                rest = rest.dropFirst(piece.count)
                if piece.count == left {
                    if let bundle = take(record) { bundles.append(bundle) }
                } else {
                    state = .record(record, left: left - piece.count)
                }
            }
        }
        return bundles
    }

    /// No more bytes come: a result that was cut off is one that was left out.
    package mutating func finish() {
        switch state {
        case .length(let start) where start.isEmpty: break
        case .length, .record: drop(1)
        case .skipped: break
        }
        state = .length([])
    }

    private mutating func takeLength(_ start: [UInt8], _ rest: inout ArraySlice<UInt8>) {
        let head = start + rest.prefix(4 - start.count)
        rest = rest.dropFirst(head.count - start.count)
        guard head.count == 4 else {
            state = .length(head)
            return
        }
        let length = head.reversed().reduce(0) { $0 << 8 | Int($1) }
        let fits =
            length <= ProtocolLimits.maximumResult && bytes + length <= ProtocolLimits.maximumResultBytes
            && count < ProtocolLimits.maximumResults
        if fits || length <= Self.shortRecord {
            state = .record([], left: length)
            if length == 0 { _ = take([]) }
        } else {
            drop(1)
            state = .skipped(left: length)
        }
    }

    /// Reads a whole record: returns its bundle, if it is one and there is room for it.
    private mutating func take(_ record: [UInt8]) -> String? {
        state = .length([])
        guard String(validating: record, as: UTF8.self) != nil, let fields = JSONMinifier.fields(of: record) else {
            drop(1)
            return nil
        }
        if fields.count == 1, fields[0].name == "dropped",
            let number = Int(String(decoding: fields[0].value, as: UTF8.self)),
            number >= 0
        {
            drop(number)
            return nil
        }
        guard let bundle = Self.bundle(fields), count < ProtocolLimits.maximumResults,
            bytes + record.count <= ProtocolLimits.maximumResultBytes
        else {
            drop(1)
            return nil
        }
        count += 1
        bytes += record.count
        return bundle
    }

    private mutating func drop(_ number: Int) {
        dropped = min(dropped + min(number, Self.maximumCount), Self.maximumCount)
    }

    /// A bundle's text, put together anew; nil when it is none.
    private static func bundle(_ fields: [(name: String, value: [UInt8])]) -> String? {
        let values = Dictionary(fields.map { ($0.name, $0.value) }) { $1 }
        guard values.count == 3, let kind = values["type"], let data = values["data"],
            let metadata = values["metadata"],
            kind == Array(#""execute_result""#.utf8) || kind == Array(#""display_data""#.utf8),
            metadata.first == UInt8(ascii: "{"), let forms = JSONMinifier.fields(of: data),
            forms.allSatisfy({ $0.value.first == UInt8(ascii: "\"") || isJSON($0.name) })
        else { return nil }
        var text = Array(#"{"type":"#.utf8)
        text.reserveCapacity(data.count + metadata.count + 64)
        text += kind
        text += Array(#","data":"#.utf8) + data
        text += Array(#","metadata":"#.utf8) + metadata
        text.append(UInt8(ascii: "}"))
        return String(decoding: text, as: UTF8.self)
    }

    private static func isJSON(_ mime: String) -> Bool {
        mime == "application/json" || mime.hasSuffix("+json")
    }
}
