// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import swiftlet_bench

@Suite struct ReportTests {
    private let host = Host(
        name: "h",
        processor: "Some CPU",
        processors: 2,
        kernel: "6.1",
        qemu: "QEMU 7",
        accelerator: "tcg",
        commit: "abc"
    )

    private func report(_ samples: [Samples], python: [Double] = [10, 10, 20], failures: [Report.Failure] = [])
        -> Report
    {
        let python = Samples("py", python)
        return Report(date: Date(), host: host, samples: samples, python: python, failures: failures)
    }

    @Test func `a time is given in units of the host's own python`() {
        let samples = Samples("warm", [25])
        #expect(report([samples]).ratio(of: samples) == 2.5)
    }

    @Test func `what is no time has no ratio`() {
        let samples = Samples("memory", unit: "MiB", [25])
        #expect(report([samples]).ratio(of: samples) == nil)
    }

    @Test func `without a measured python there is no ratio and no verdict`() {
        let samples = Samples("warm", [25], budget: .pythons(3))
        let report = report([samples], python: [])
        #expect(report.ratio(of: samples) == nil)
        #expect(report.isWithinBudget(samples) == nil)
    }

    @Test(arguments: [
        (Budget.pythons(3), [30.0], true), (.pythons(3), [30.1], false),
        (.atMost(48), [48], true), (.atMost(48), [49], false), (.atMost(0), [0], true), (.atMost(0), [0.1], false),
        (.atLeast(25), [25], true), (.atLeast(25), [24.9], false),
        (.times(1.3, of: "other"), [130], true), (.times(1.3, of: "other"), [131], false),
    ])
    func `a budget holds up to its limit`(budget: Budget, values: [Double], isWithin: Bool) {
        let samples = Samples("x", values, budget: budget)
        #expect(report([Samples("other", [100]), samples]).isWithinBudget(samples) == isWithin)
    }

    @Test func `a budget relative to samples that are missing gives no verdict`() {
        let samples = Samples("x", [1], budget: .times(1.3, of: "other"))
        #expect(report([samples]).isWithinBudget(samples) == nil)
        #expect(report([Samples("other", []), samples]).isWithinBudget(samples) == nil)
    }

    @Test func `the table names each budget and by how much it is missed`() throws {
        let samples = [
            Samples("kept", [29], budget: .pythons(3)), Samples("missed", [60], budget: .pythons(3)),
            Samples("free", unit: "MiB", [7]),
        ]
        let lines = report(samples).table.split(separator: "\n").map(String.init)
        #expect(try #require(lines.first { $0.hasPrefix("kept") }).hasSuffix("2.90  3 py, kept"))
        #expect(try #require(lines.first { $0.hasPrefix("missed") }).hasSuffix("6.00  3 py, missed: 2.00 times it"))
        #expect(try #require(lines.first { $0.hasPrefix("free") }).contains("MiB"))
    }

    @Test func `a failed phase is in the report beside what was measured`() {
        let failure = Report.Failure(phase: "burst", message: "The server answered 503")
        let table = report([Samples("warm", [25])], failures: [failure]).table
        #expect(table.contains("warm"))
        #expect(table.contains("FAILED burst: The server answered 503"))
    }

    @Test func `every sample, budget and failure is in the JSON`() throws {
        let failure = Report.Failure(phase: "burst", message: "m")
        let report = report([Samples("warm", [2, 1], budget: .pythons(0.3))], failures: [failure])
        let object = try JSONSerialization.jsonObject(with: JSONEncoder().encode(report)) as? [String: Any]
        let samples = try #require(object?["samples"] as? [[String: Any]])
        #expect(samples.first?["values"] as? [Double] == [2, 1])
        #expect(samples.first?["budget"] as? String == "0.3 py")
        #expect((object?["python"] as? [String: Any])?["values"] as? [Double] == [10, 10, 20])
        #expect((object?["failures"] as? [[String: String]])?.first == ["phase": "burst", "message": "m"])
    }
}
