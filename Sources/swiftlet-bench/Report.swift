// SPDX-License-Identifier: Apache-2.0

package import Foundation

/// Where and what was measured, with all samples.
package struct Report: Encodable, Sendable {
    /// A phase that did not come to its end; what it had measured until then is in the samples.
    package struct Failure: Encodable, Equatable, Sendable {
        package let phase: String
        package let message: String

        package init(phase: String, message: String) {
            self.phase = phase
            self.message = message
        }
    }

    package var date: Date
    package var host: Host
    package var samples: [Samples]
    /// `python3 -c pass` on this machine, in milliseconds: the unit of the budgets.
    package var python: Samples
    package var failures: [Failure]

    package init(date: Date, host: Host, samples: [Samples], python: Samples, failures: [Failure] = []) {
        self.date = date
        self.host = host
        self.samples = samples
        self.python = python
        self.failures = failures
    }

    /// For people.
    package var table: String {
        var lines = [
            "\(host.processor), \(host.processors) processors, Linux \(host.kernel)",
            "\(host.qemu), \(host.accelerator), commit \(host.commit)",
            "",
            Self.line("", ["N", "p50", "p90", "p99", "", "x py"], "budget"),
            line(of: python),
        ]
        lines += samples.map(line)
        lines += failures.map { "\nFAILED \($0.phase): \($0.message)" }
        return lines.joined(separator: "\n")
    }

    /// A median in units of `py`; nil for what is no time.
    package func ratio(of sample: Samples) -> Double? {
        guard sample.unit == "ms", python.median > 0, !sample.values.isEmpty else { return nil }
        return sample.median / python.median
    }

    /// The median's limit in the samples' own unit; nil when what it depends on was not measured.
    package func limit(of sample: Samples) -> Double? {
        switch sample.budget {
        case nil: nil
        case .pythons(let factor): python.values.isEmpty ? nil : factor * python.median
        case .times(let factor, let name):
            samples.first { $0.name == name && !$0.values.isEmpty }.map { factor * $0.median }
        case .atMost(let value), .atLeast(let value): value
        }
    }

    /// Whether the median keeps its budget; nil when there is none, or nothing to compare with.
    package func isWithinBudget(_ sample: Samples) -> Bool? {
        guard let limit = limit(of: sample), !sample.values.isEmpty else { return nil }
        if case .atLeast = sample.budget { return sample.median >= limit }
        return sample.median <= limit
    }

    package func line(of sample: Samples) -> String {
        let values = [0.5, 0.9, 0.99].map { String(format: "%.2f", sample.percentile($0)) }
        let ratio = ratio(of: sample).map { String(format: "%.2f", $0) } ?? ""
        return Self.line(
            sample.name,
            ["\(sample.values.count)"] + values + [sample.unit, ratio],
            budgetWords(of: sample)
        )
    }

    /// The budget, and by how much it is missed.
    private func budgetWords(of sample: Samples) -> String {
        guard let budget = sample.budget else { return "" }
        guard let limit = limit(of: sample), let isWithin = isWithinBudget(sample) else { return "\(budget)" }
        if isWithin { return "\(budget), kept" }
        guard limit > 0, sample.median > 0 else { return "\(budget), missed" }
        let factor = sample.median / limit
        return "\(budget), missed: " + String(format: "%.2f times it", factor)
    }

    private static func line(_ name: String, _ cells: [String], _ last: String) -> String {
        let first = name + String(repeating: " ", count: max(1, 44 - name.count))
        let middle = cells.map { String(repeating: " ", count: max(1, 9 - $0.count)) + $0 }.joined()
        return last.isEmpty ? first + middle : first + middle + "  " + last
    }
}
