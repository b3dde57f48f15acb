// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRDB
import SwiftletCore
import SwiftletStore
import Synchronization
import Testing

/// What a server does at its start with what the last one left unfinished.
@Suite(.timeLimit(.minutes(5))) struct RecoveryTests {
    private func unfinished(_ services: TestServices) async throws -> ExecutionID {
        let id = ExecutionID.random()
        let record = ExecutionRecord(
            id: id,
            owner: services.owner,
            session: .random(),
            language: "python",
            mode: .async,
            createdAt: Date(timeIntervalSince1970: 1_600_000_000),
            timeout: nil
        )
        _ = try await services.executionStore.insert(record)
        return id
    }

    @Test func aRecordThatCannotBeWrittenStopsNeitherTheOthersNorTheStart() async throws {
        let ids = Mutex([ExecutionID]())
        try await TestServices.with { services in
            var left: [ExecutionID] = []
            for _ in 0..<3 { left.append(try await unfinished(services)) }
            let broken = left[1]
            try await services.secondConnection().write { database in
                try database.execute(
                    sql: """
                        CREATE TRIGGER refuse BEFORE UPDATE ON executions WHEN NEW.id = '\(broken)'
                        BEGIN SELECT RAISE(ABORT, 'test'); END
                        """
                )
            }
            ids.withLock { [left] in $0 = left }
        } _: { services in
            var states: [ExecutionState?] = []
            for id in ids.withLock({ $0 }) {
                states.append(try await services.executionStore.execution(id, owner: services.owner)?.state)
            }
            #expect(states[0] == .nodeLost && states[2] == .nodeLost)
            #expect(states[1] != .nodeLost)
            #expect(try await services.execute().state == .exited)
        }
    }
}
