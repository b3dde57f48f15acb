// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import SwiftletSessions
import SwiftletStore
import Testing

@Suite struct ExecutionJournalTests {
    private let log = OutputLog(path: "/nonexistent/file", memoryLimit: 4 << 20, limit: 4 << 20)
    private let later = ContinuousClock.now + .seconds(60)

    private func journal(patience: Duration = .seconds(60)) -> ExecutionJournal {
        let record = ExecutionRecord(
            id: .random(),
            owner: UserID(rawValue: 1),
            session: .random(),
            language: "bash",
            mode: .async,
            createdAt: Date(),
            timeout: nil
        )
        return ExecutionJournal(record, logs: [.stdout: log], patience: patience)
    }

    private func write(_ bytes: Int, _ journal: ExecutionJournal) {
        log.append([UInt8](repeating: 1, count: bytes)[...])
        journal.advanced()
    }

    /// Whether it returns within a time.
    private func returns(within limit: Duration, _ body: @escaping @Sendable () async -> Void) async -> Bool {
        await withTaskGroup(of: Bool.self) { group in
            group.addTask {
                await body()
                return !Task.isCancelled
            }
            group.addTask {
                // A cancelled sleep loses the race, as it should.
                try? await Task.sleep(for: limit)
                return false
            }
            defer { group.cancelAll() }
            return await group.next() ?? false
        }
    }

    @Test func aWaitEndsWithTheNextChange() async {
        let journal = journal()
        let version = journal.version
        async let changed = returns(within: .seconds(30)) { await journal.change(after: version, within: .seconds(60)) }
        write(1, journal)
        #expect(await changed)
    }

    @Test func aWaitForAChangeThatHasHappenedEndsAtOnce() async {
        let journal = journal()
        let version = journal.version
        write(1, journal)
        #expect(await returns(within: .seconds(30)) { await journal.change(after: version, within: .seconds(60)) })
    }

    @Test func aWaitEndsAtItsLimitAndWhenItsTaskIsCancelled() async {
        let journal = journal()
        await journal.change(after: journal.version, within: .milliseconds(20))
        let task = Task { await journal.change(after: journal.version, within: .seconds(600)) }
        task.cancel()
        await task.value
    }

    @Test func theSizesOfARecordAreThoseOfItsLogs() {
        let journal = journal()
        write(10, journal)
        #expect(journal.record.size(of: .stdout) == .init(bytes: 10))
        #expect(journal.record.size(of: .stderr) == .init())
    }

    @Test func whoIsFarBehindIsWaitedForUntilItHasCaughtUp() async {
        let journal = journal()
        let follower = journal.follow(from: 0)
        write(2 << 20, journal)
        let waits = { @Sendable in await journal.waitForFollowers(until: later) { false } }
        #expect(await returns(within: .milliseconds(200), waits) == false)
        journal.delivered(3 << 19, to: follower)
        #expect(await returns(within: .seconds(30), waits))
    }

    @Test func whoLeavesIsNotWaitedForNorWhoIsSilentForLong() async {
        let journal = journal(patience: .milliseconds(50))
        let follower = journal.follow(from: 0)
        write(2 << 20, journal)
        #expect(await returns(within: .seconds(30)) { await journal.waitForFollowers(until: later) { false } })
        journal.unfollow(follower)
        #expect(await returns(within: .seconds(30)) { await journal.waitForFollowers(until: later) { false } })
    }

    @Test func nobodyIsWaitedForWhenWhatRunsIsOver() async {
        let journal = journal()
        _ = journal.follow(from: 0)
        write(2 << 20, journal)
        #expect(await returns(within: .seconds(30)) { await journal.waitForFollowers(until: later) { true } })
        #expect(await returns(within: .seconds(30)) { await journal.waitForFollowers(until: .now) { false } })
        journal.unpace()
        #expect(await returns(within: .seconds(30)) { await journal.waitForFollowers(until: later) { false } })
    }
}
