// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore
import SwiftletStore
import Testing

@Suite struct ExecutionStoreTests {
    private let store: ExecutionStore
    private let users: UserStore

    init() throws {
        let database = try Database.inMemory()
        store = ExecutionStore(database)
        users = UserStore(database)
    }

    private func record(_ owner: UserID, key: String? = nil, hash: String = "h") -> ExecutionRecord {
        ExecutionRecord(
            id: .random(),
            owner: owner,
            session: .random(),
            language: "python",
            mode: .async,
            createdAt: Date(timeIntervalSince1970: 1_000),
            timeout: 60,
            idempotency: key.map { IdempotencyClaim(key: $0, requestHash: hash) }
        )
    }

    private func owner(_ name: String = "a") async throws -> UserID {
        try await users.create(email: "\(name)@example.org").id
    }

    private func ended(_ record: ExecutionRecord, at seconds: Double, bytes: Int) -> ExecutionRecord {
        var record = record
        record.state = .exited
        record.endedAt = Date(timeIntervalSince1970: seconds)
        record.sizes[.stdout] = .init(bytes: bytes)
        return record
    }

    @Test func aRecordIsReadAsItWasWritten() async throws {
        let owner = try await owner()
        var record = record(owner, key: "k")
        #expect(try await store.insert(record))
        record.state = .signaled
        record.startedAt = Date(timeIntervalSince1970: 1_001)
        record.endedAt = Date(timeIntervalSince1970: 1_002.5)
        record.vmID = "vm-x"
        record.vmStartedAt = Date(timeIntervalSince1970: 999)
        record.restore = RestoreRecord(
            generation: "00",
            origin: "pool",
            template: nil,
            confirmed: ["randomness"],
            milliseconds: 3
        )
        record.exitCode = 137
        record.signal = 9
        record.executionTime = 1.5
        record.cpuTime = 0.25
        record.stateLost = true
        record.note = "a note"
        record.sizes = [.stdout: .init(bytes: 3, dropped: 1), .stderr: .init(), .results: .init(bytes: 0, dropped: 2)]
        try await store.update(record, outputs: [.stdout: [1, 2, 3], .stderr: []])
        #expect(try await store.execution(record.id, owner: owner) == record)
        #expect(try await store.output(of: record.id, .stdout) == [1, 2, 3])
        #expect(try await store.output(of: record.id, .stderr) == nil)
        #expect(try await store.unfinished().isEmpty)
    }

    @Test func anothersExecutionIsUnknown() async throws {
        let record = record(try await owner())
        #expect(try await store.insert(record))
        let other = try await owner("b")
        #expect(try await store.execution(record.id, owner: other) == nil)
        #expect(try await store.list(.init(owner: other)).isEmpty)
    }

    @Test func aKeyIsTakenOnceByEachOwner() async throws {
        let owner = try await owner()
        let other = try await self.owner("b")
        let first = record(owner, key: "k")
        #expect(try await store.insert(first))
        #expect(try await store.insert(record(owner, key: "k", hash: "other")) == false)
        #expect(try await store.insert(record(other, key: "k")))
        #expect(try await store.insert(record(owner)))
        #expect(try await store.insert(record(owner)))
        #expect(try await store.execution(key: "k", owner: owner)?.id == first.id)
        try await store.expireKeys(createdBefore: Date(timeIntervalSince1970: 2_000))
        #expect(try await store.execution(key: "k", owner: owner) == nil)
        #expect(try await store.insert(record(owner, key: "k")))
    }

    @Test func aListIsTheNewestFirstInPagesAndFiltered() async throws {
        let owner = try await owner()
        var records: [ExecutionRecord] = []
        for index in 0..<10 {
            var one = record(owner)
            if index % 2 == 0 { one.language = "bash" }
            #expect(try await store.insert(one))
            if index < 4 {
                one = ended(one, at: 1_000, bytes: 0)
                try await store.update(one)
            }
            records.append(one)
        }
        let newest = Array(records.reversed()).map(\.id)
        #expect(try await store.list(.init(owner: owner)).map(\.id) == newest)
        let page = try await store.list(.init(owner: owner, before: newest[2], limit: 3))
        #expect(page.map(\.id) == Array(newest[3..<6]))
        #expect(try await store.list(.init(owner: owner, language: "bash")).count == 5)
        #expect(try await store.list(.init(owner: owner, states: [.exited])).count == 4)
        #expect(try await store.list(.init(owner: owner, session: records[3].session)).map(\.id) == [records[3].id])
        #expect(try await store.list(.init(owner: owner, before: .random())).isEmpty)
    }

    @Test func anEndThatIsWrittenIsNotTakenBackByALateBeginning() async throws {
        let owner = try await owner()
        var record = record(owner)
        #expect(try await store.insert(record))
        try await store.update(ended(record, at: 2_000, bytes: 0))
        record.state = .running
        try await store.begin(record)
        #expect(try await store.execution(record.id, owner: owner)?.state == .exited)
    }

    @Test func outputsExpireTheOldestFirstAndRecordsAfterThem() async throws {
        let owner = try await owner()
        var ids: [ExecutionID] = []
        for index in 0..<3 {
            let one = record(owner)
            #expect(try await store.insert(one))
            try await store.update(ended(one, at: 100 + Double(index), bytes: 10), outputs: [.stdout: [1]])
            ids.append(one.id)
        }
        #expect(try await store.outputBytes() == 30)
        let old = try await store.outputs(endedBefore: Date(timeIntervalSince1970: 101.5))
        #expect(old.map(\.id) == Array(ids[..<2]))
        #expect(old.map(\.bytes) == [10, 10])
        #expect(try await store.oldestOutputs(limit: 1).map(\.id) == [ids[0]])
        try await store.expireOutput(of: [ids[0]], at: Date(timeIntervalSince1970: 200))
        #expect(try await store.outputBytes() == 20)
        #expect(try await store.output(of: ids[0], .stdout) == nil)
        #expect(try await store.execution(ids[0], owner: owner)?.outputExpiredAt != nil)
        #expect(try await store.known(ids) == [ids[1], ids[2]])
        // Those with output stay.
        #expect(try await store.removeRecords(endedBefore: Date(timeIntervalSince1970: 1_000)) == 1)
        #expect(try await store.execution(ids[0], owner: owner) == nil)
        #expect(try await store.execution(ids[1], owner: owner) != nil)
    }
}
