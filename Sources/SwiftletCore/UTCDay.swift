// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// A day of the calendar, from midnight to midnight UTC.
package struct UTCDay: Hashable, Comparable, Sendable, CustomStringConvertible {
    private static let seconds = 86_400

    /// Days since 1 January 1970.
    package let number: Int

    package init(number: Int) {
        self.number = number
    }

    /// The day that a moment is in.
    package init(containing moment: Date) {
        number = Int((moment.timeIntervalSince1970 / Double(Self.seconds)).rounded(.down))
    }

    /// Reads `2026-04-01`, alone or as the date of an ISO 8601 time; nil when there is no such day.
    package init?(text: String) {
        let parts = text.prefix { $0 != "T" && $0 != " " }.split(separator: "-", omittingEmptySubsequences: false)
        let isPlain = parts.allSatisfy { $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }
        guard parts.map(\.utf8.count) == [4, 2, 2], isPlain, text.utf8.count <= 40, let year = Int(parts[0]),
            let month = Int(parts[1]), let day = Int(parts[2]), year >= 1970, (1...12).contains(month), day >= 1
        else { return nil }
        // Howard Hinnant's days_from_civil: years that begin in March have their leap day last.
        let shifted = month > 2 ? year : year - 1
        let era = shifted / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        number = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
        // The thirtieth of February is some other day.
        guard description == "\(parts[0])-\(parts[1])-\(parts[2])" else { return nil }
    }

    package static func < (one: UTCDay, other: UTCDay) -> Bool {
        one.number < other.number
    }

    /// Midnight at its beginning.
    package var start: Date { Date(timeIntervalSince1970: Double(number * Self.seconds)) }

    package func advanced(by days: Int) -> UTCDay {
        UTCDay(number: number + days)
    }

    /// `2026-04-01`.
    package var description: String {
        var seconds = time_t(number * Self.seconds)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ value: Int32, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        return "\(padded(parts.tm_year + 1900, 4))-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
    }
}
