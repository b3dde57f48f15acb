// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import SwiftletJSON
import SwiftletSessions

/// Shows files: as JSON, and in headers.
enum FileOutput {
    static let modeHeader = HTTPField.Name("X-File-Mode")
    static let typeHeader = HTTPField.Name("X-File-Type")
    static let offsetHeader = HTTPField.Name("X-Upload-Offset")

    /// The fields of the entry at a path.
    static func fields(_ info: FileInfo, path: [UInt8]) -> [JSONValue.Field] {
        [
            .init(name: "path", value: .string(String(decoding: path, as: UTF8.self))),
            .init(name: "type", value: .string(info.kind.rawValue)),
            .init(name: "size", value: .integer(info.size)),
            .init(name: "mode", value: .string(mode(info))),
            .init(name: "modified_at", value: .init(modified(info))),
            .init(name: "uid", value: .integer(info.user)),
            .init(name: "gid", value: .integer(info.group)),
        ]
    }

    /// A page of a directory.
    static func json(_ listing: DirectoryListing, of directory: FileLocation) -> JSONValue {
        let base = directory.path == [UInt8(ascii: "/")] ? [] : directory.path
        let entries = listing.entries.map { entry in
            let path = base + [UInt8(ascii: "/")] + entry.name
            var fields: [JSONValue.Field] = [.init(name: "name", value: text(entry.name))]
            fields += Self.fields(entry.info, path: path)
            fields.append(.init(name: "href", value: .string(href(path, in: directory))))
            if String(validating: entry.name, as: UTF8.self) == nil {
                fields.append(.init(name: "name_base64", value: .string(Data(entry.name).base64EncodedString())))
            }
            if let target = entry.target { fields.append(.init(name: "target", value: text(target))) }
            return JSONValue.object(fields)
        }
        let next = listing.hasMore ? listing.entries.last.map { PercentCoding.encode($0.name) } : nil
        return [
            "path": text(directory.path), "type": "directory", "entries": .array(entries), "next": .init(next),
        ]
    }

    private static func text(_ bytes: [UInt8]) -> JSONValue { .string(String(decoding: bytes, as: UTF8.self)) }

    /// Where the API has a file; unlike its path a text that loses nothing.
    private static func href(_ path: [UInt8], in directory: FileLocation) -> String {
        "/v1/sessions/\(directory.session)/files\(PercentCoding.encode(path))"
    }

    static func mode(_ info: FileInfo) -> String {
        let digits = String(info.mode, radix: 8)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }

    private static func modified(_ info: FileInfo) -> Date {
        Date(timeIntervalSince1970: Double(info.modifiedSeconds) + Double(info.modifiedNanoseconds) / 1e9)
    }

    /// The headers of a file.
    static func headers(_ info: FileInfo) -> HTTPFields {
        var headers: HTTPFields = [:]
        if let modeHeader { headers[modeHeader] = mode(info) }
        if let typeHeader { headers[typeHeader] = info.kind.rawValue }
        headers[.lastModified] = lastModified(info)
        guard info.kind == .file else { return headers }
        headers[.contentType] = "application/octet-stream"
        headers[.acceptRanges] = "bytes"
        headers[.eTag] = tag(info)
        // A browser must not render users' files as pages of this server.
        headers[.xContentTypeOptions] = "nosniff"
        return headers
    }

    /// Changes with each change of the content that the guest's clock can tell.
    static func tag(_ info: FileInfo) -> String {
        let parts = [Int(truncatingIfNeeded: info.inode), info.size, info.modifiedSeconds, info.modifiedNanoseconds]
        return "\"" + parts.map { String(UInt(bitPattern: $0), radix: 16) }.joined(separator: "-") + "\""
    }

    /// The time in HTTP's form. Source: RFC 9110, 5.6.7.
    static func lastModified(_ info: FileInfo) -> String {
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        var seconds = time_t(info.modifiedSeconds)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let time = "\(padded(parts.tm_hour)):\(padded(parts.tm_min)):\(padded(parts.tm_sec))"
        let day = days[Int(parts.tm_wday) % 7]
        let month = months[Int(parts.tm_mon) % 12]
        return "\(day), \(padded(parts.tm_mday)) \(month) \(Int(parts.tm_year) + 1900) \(time) GMT"
    }
}
