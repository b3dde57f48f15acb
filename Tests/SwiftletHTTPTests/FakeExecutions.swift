// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore
import SwiftletMetrics
import SwiftletSessions
import SwiftletStore

/// Executions without VMs: all of them are over, and left behind what a test wants.
struct FakeExecutions: ExecutionAPI {
    var stdout: [UInt8] = []
    var results: [UInt8] = []
    var note: String?
    var failure: SessionError?
    var outputExpiredAt: Date?
    /// The last filter that was asked for.
    let filters = Recorder<ExecutionStore.Filter>()
    let requests = Recorder<ExecutionRequest>()

    func handle(owner: UserID, session: SessionID? = nil, language: String = "python") -> ExecutionHandle {
        var record = ExecutionRecord(
            id: .random(),
            owner: owner,
            session: session ?? .random(),
            language: language,
            mode: .sync,
            state: .exited,
            createdAt: Date(timeIntervalSince1970: 0),
            timeout: 60
        )
        record.endedAt = Date(timeIntervalSince1970: 1)
        record.exitCode = 0
        record.vmID = "vm-x"
        record.vmStartedAt = Date(timeIntervalSince1970: 0)
        record.executionTime = 0.25
        record.note = note
        record.outputExpiredAt = outputExpiredAt
        return ExecutionHandle(record, logs: [.stdout: OutputLog(stdout), .results: OutputLog(results)])
    }

    func execute(_ request: ExecutionRequest) async throws -> (result: ExecutionResult, isReplay: Bool) {
        (ExecutionResult(try await start(request).handle), false)
    }

    func start(_ request: ExecutionRequest) async throws -> (handle: ExecutionHandle, isReplay: Bool) {
        if let failure { throw failure }
        requests.record(request)
        let handle = handle(owner: request.owner, session: request.session, language: request.language.rawValue)
        return (handle, false)
    }

    func handle(of id: ExecutionID, owner: UserID) async throws -> ExecutionHandle {
        if let failure { throw failure }
        return handle(owner: owner)
    }

    func record(of id: ExecutionID, owner: UserID) async throws -> ExecutionRecord {
        try await handle(of: id, owner: owner).record
    }

    func list(_ filter: ExecutionStore.Filter) async throws -> [ExecutionRecord] {
        if let failure { throw failure }
        filters.record(filter)
        return [handle(owner: filter.owner).record]
    }

    func metrics() async -> [MetricFamily] { [] }

    func cancel(_ id: ExecutionID, owner: UserID) async throws -> ExecutionRecord {
        try await record(of: id, owner: owner)
    }
}
