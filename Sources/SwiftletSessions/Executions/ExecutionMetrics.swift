// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import SwiftletCore
package import SwiftletMetrics

/// What is counted of executions.
struct ExecutionMetrics: Sendable {
    private let ended = Counter(
        "swiftlet_executions_total",
        "Executions that ended, by how, and by language and mode."
    )
    private let duration = Histogram(
        "swiftlet_execution_seconds",
        "From an execution's acceptance to its end, by language and mode."
    )
    private let queued = Histogram(
        "swiftlet_execution_queue_seconds",
        "From an execution's acceptance until its code ran: the wait for a turn and for a microVM."
    )

    /// Counts one that is over.
    func count(_ record: ExecutionRecord) {
        let labels = ["language": record.language, "mode": record.mode.rawValue]
        ended.add(labels.merging(["outcome": record.state.rawValue]) { $1 })
        guard let end = record.endedAt else { return }
        duration.observe(end.timeIntervalSince(record.createdAt), labels)
        if let start = record.startedAt { queued.observe(start.timeIntervalSince(record.createdAt), labels) }
    }

    var families: [MetricFamily] { [ended.family, duration.family, queued.family] }
}

extension ExecutionRecord {
    /// What a line of the log says about the end of it, and nothing of what it ran or said.
    var logMetadata: Logger.Metadata {
        [
            "vm.id": "\(vmID ?? "none")", "language": "\(language)", "mode": "\(mode.rawValue)",
            "outcome": "\(state.rawValue)", "duration_ms": "\(Int(executionTime * 1_000))",
        ]
    }
}

extension ExecutionService {
    package func metrics() async -> [MetricFamily] {
        let running = running.values.map { $0.handle.record.state }
        let states: [ExecutionState] = [.queued, .running]
        let samples = states.map { state in
            MetricFamily.Sample(["state": state.rawValue], Double(running.count { $0 == state }))
        }
        return metrics.families + [
            MetricFamily("swiftlet_executions", .gauge, "Executions that are not over, by state.", samples)
        ]
    }
}
