// SPDX-License-Identifier: Apache-2.0

import Foundation
import Hummingbird
import SwiftletCore
import SwiftletJSON
import SwiftletSessions
import SwiftletStore

/// Usage of sessions and users.
struct UsageRoutes: Sendable {
    private static let maximumDays = Limits.usageDays.upperBound

    let sessions: any SessionAPI
    let usage: UsageStore
    let authenticator: Authenticator

    var routes: [Route] {
        [
            Route(.get, "/v1/sessions/usage/{id}", .sessionUsage, ofSession),
            Route(.get, "/v1/users/me/usage-breakdown", .usageBreakdown, daily),
        ]
    }

    /// `GET /v1/sessions/usage/{id}`
    private func ofSession(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        let record = try await sessions.status(of: try SessionID(ofPath: context), owner: user).record
        let usage = try await usage.usage(of: record.id)
        return Response(json: [
            "session_id": .string(record.id.rawValue),
            "created_at": .init(record.createdAt),
            "vm_count": .integer(usage.vmCount),
            "vm_seconds": Self.rounded(usage.vms.vmSeconds),
            "vcpu_seconds": Self.rounded(usage.vms.vcpuSeconds),
            "memory_gib_seconds": Self.rounded(usage.vms.memoryGiBSeconds),
            "executions": .integer(usage.executionCount),
            "cpu_time": Self.rounded(usage.cpuTime),
            "execution_time": Self.rounded(usage.executionTime),
            "output_bytes": .integer(usage.outputBytes),
        ])
    }

    /// `GET /v1/users/me/usage-breakdown?days=30`, or between `start_date` and `end_date`, both included.
    private func daily(_ request: Request, _ context: AppContext) async throws -> Response {
        let user = try await authenticator.user(request.headers)
        var query = FieldReader(queryOf: request)
        let period = Self.period(&query, today: UTCDay(containing: Date()))
        try query.finish()
        let usage = try await usage.daily(of: user, period)
        let days = usage.days.enumerated().map { index, day in
            let date = period.lowerBound.advanced(by: index).description
            return JSONValue.object([.init(name: "date", value: .string(date))] + Self.fields(of: day))
        }
        return Response(json: [
            "period_start": .string(period.lowerBound.description),
            "period_end": .string(period.upperBound.description),
            "total_days": .integer(days.count),
            "totals": .object(Self.fields(of: usage.total)),
            "daily_breakdown": .array(days),
        ])
    }

    /// The days of the query; today when the query is wrong.
    private static func period(_ query: inout FieldReader, today: UTCDay) -> ClosedRange<UTCDay> {
        let days = query.integer("days", in: Limits.usageDays) ?? Defaults.usageDays
        let start = day("start_date", &query)
        let end = day("end_date", &query)
        let last = end ?? start.map { min(today, $0.advanced(by: maximumDays - 1)) } ?? today
        let first = start ?? last.advanced(by: 1 - days)
        guard first <= last else {
            let message = "start_date must not be after end_date, or after today"
            query.report("start_date", "value_error", message, input: query.string("start_date"))
            return today...today
        }
        guard last.number - first.number < maximumDays else {
            let message = "The period must have at most \(maximumDays) days"
            query.report("start_date", "value_error", message, input: query.string("start_date"))
            return today...today
        }
        return first...last
    }

    private static func day(_ name: String, _ query: inout FieldReader) -> UTCDay? {
        guard let text = query.string(name), !text.isEmpty else { return nil }
        guard let day = UTCDay(text: text) else {
            query.report(name, "date_parsing", "Input should be a valid date, such as 2026-04-01", input: text)
            return nil
        }
        return day
    }

    private static func fields(of usage: VMUsage) -> [JSONValue.Field] {
        [
            .init(name: "cost_dollars", value: .number(0)),
            .init(name: "cpu_hours", value: rounded(usage.vcpuSeconds / 3_600)),
            .init(name: "ram_gib_hours", value: rounded(usage.memoryGiBSeconds / 3_600)),
        ]
    }

    /// Rounded to a millionth.
    private static func rounded(_ value: Double) -> JSONValue {
        .number((value * 1e6).rounded() / 1e6)
    }
}
