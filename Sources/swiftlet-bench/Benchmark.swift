// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletClient

/// The measurements, each phase on a server set up for it. The phases themselves are in Benchmark+Phases.swift.
struct Benchmark {
    struct Counts {
        var warm: Int
        var paced: Int
        var new: Int
        var imports: Int
        var cold: Int
        var idle: Int
        var burst: Int
    }

    enum Phase: String, CaseIterable, ExpressibleByArgument {
        /// Everything that a server with a pool of two shows.
        case pool
        /// New sessions without a pool.
        case template
        /// New sessions without templates.
        case boot
        /// Many sessions that do nothing.
        case idle
        /// Many new sessions at once.
        case burst
    }

    let settings: ServerSettings
    let counts: Counts
    private(set) var accelerator = "unknown"
    private(set) var samples: [Samples] = []
    private(set) var failures: [Report.Failure] = []
    private(set) var python = HostPython()

    init(settings: ServerSettings, counts: Counts) {
        self.settings = settings
        self.counts = counts
    }

    /// Measures these phases. One that fails is noted, and the next one begins.
    mutating func run(_ phases: [Phase]) async throws {
        // Between the phases too: the machine's speed changes, and the budgets follow it.
        try python.measure(20)
        for phase in phases {
            do {
                try await run(phase)
            } catch {
                let failure = Report.Failure(phase: phase.rawValue, message: "\(error)")
                progress("  FAILED: \(failure.message)")
                failures.append(failure)
            }
            try python.measure(20)
        }
    }

    private mutating func run(_ phase: Phase) async throws {
        switch phase {
        case .pool: try await measurePool()
        case .template: try await measureTemplate()
        case .boot: try await measureBoot()
        case .idle: try await measureIdle()
        case .burst: try await measureBurst()
        }
    }

    /// Starts a server with these settings, runs the body with it and its client, and ends both.
    mutating func withServer(
        _ name: String,
        _ environment: [String: String],
        _ body: (inout Benchmark, BenchServer, Workload) async throws -> Void
    ) async throws {
        progress("server: \(name)")
        let server = try BenchServer(settings, environment: environment)
        accelerator = server.accelerator
        // A connection for each that a phase has on its way at once, so that none waits for another's.
        let client = server.client(connections: max(counts.burst, counts.idle, 32))
        do {
            try await body(&self, server, Workload(client: client))
        } catch {
            try await client.close()
            try server.stop()
            throw error
        }
        try await client.close()
        try server.stop()
    }

    mutating func add(_ name: String, _ values: [Double], unit: String = "ms", budget: Budget? = nil) {
        let sample = Samples(name, unit: unit, values, budget: budget)
        samples.append(sample)
        let medians = [0.5, 0.9].map { String(format: "%.2f", sample.percentile($0)) }
        progress("  \(name): N \(values.count), p50 \(medians[0]), p90 \(medians[1]) \(unit)")
    }

    private func progress(_ text: String) {
        FileHandle.standardError.write(Data("\(text)\n".utf8))
    }
}
