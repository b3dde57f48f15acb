// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import SwiftletCore
import SwiftletSessions
import Testing

@Suite struct ExecutionHandleTests {
    private let log = OutputLog(path: "/nonexistent/file", memoryLimit: 4 << 20, limit: 4 << 20)
    private let later = ContinuousClock.now + .seconds(60)

    private func handle(patience: Duration = .seconds(60)) -> ExecutionHandle {
        let record = ExecutionRecord(
            id: .random(),
            owner: UserID(rawValue: 1),
            session: .random(),
            language: "bash",
            mode: .async,
            createdAt: Date(),
            timeout: nil
        )
        return ExecutionHandle(record, logs: [.stdout: log], patience: patience)
    }

    private func write(_ bytes: Int, _ handle: ExecutionHandle) async throws {
        try await log.append([UInt8](repeating: 1, count: bytes)[...])
        handle.advanced()
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

    @Test func aWaitEndsWithTheNextChange() async throws {
        let handle = handle()
        let version = handle.version
        async let changed = returns(within: .seconds(30)) {
            await handle.waitForChange(after: version, within: .seconds(60))
        }
        try await write(1, handle)
        #expect(await changed)
    }

    @Test func aWaitForAChangeThatHasHappenedEndsAtOnce() async throws {
        let handle = handle()
        let version = handle.version
        try await write(1, handle)
        #expect(
            await returns(within: .seconds(30)) { await handle.waitForChange(after: version, within: .seconds(60)) }
        )
    }

    @Test func aWaitEndsAtItsLimitAndWhenItsTaskIsCancelled() async throws {
        let handle = handle()
        await handle.waitForChange(after: handle.version, within: .milliseconds(20))
        let task = Task { await handle.waitForChange(after: handle.version, within: .seconds(600)) }
        task.cancel()
        await task.value
    }

    @Test func theSizesOfARecordAreThoseOfItsLogs() async throws {
        let handle = handle()
        try await write(10, handle)
        #expect(handle.record.size(of: .stdout) == .init(bytes: 10))
        #expect(handle.record.size(of: .stderr) == .init())
    }

    @Test func whoIsFarBehindIsWaitedForUntilItHasCaughtUp() async throws {
        let handle = handle()
        let follower = handle.subscribe(from: 0)
        try await write(2 << 20, handle)
        let waits = { @Sendable in await handle.waitForSubscribers(until: later) { false } }
        #expect(await returns(within: .milliseconds(200), waits) == false)
        handle.delivered(3 << 19, to: follower)
        #expect(await returns(within: .seconds(30), waits))
    }

    @Test func whoLeavesIsNotWaitedForNorWhoIsSilentForLong() async throws {
        let handle = handle(patience: .milliseconds(50))
        let follower = handle.subscribe(from: 0)
        try await write(2 << 20, handle)
        #expect(await returns(within: .seconds(30)) { await handle.waitForSubscribers(until: later) { false } })
        handle.unsubscribe(follower)
        #expect(await returns(within: .seconds(30)) { await handle.waitForSubscribers(until: later) { false } })
    }

    @Test func nobodyIsWaitedForWhenWhatRunsIsOver() async throws {
        let handle = handle()
        _ = handle.subscribe(from: 0)
        try await write(2 << 20, handle)
        #expect(await returns(within: .seconds(30)) { await handle.waitForSubscribers(until: later) { true } })
        #expect(await returns(within: .seconds(30)) { await handle.waitForSubscribers(until: .now) { false } })
        handle.unpace()
        #expect(await returns(within: .seconds(30)) { await handle.waitForSubscribers(until: later) { false } })
    }
}
