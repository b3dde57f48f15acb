// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore
import SwiftletStore
import Testing

@Suite struct UTCDayTests {
    @Test(arguments: [
        ("1970-01-01", 0), ("2000-02-29", 11_016), ("2024-12-31", 20_088), ("2026-04-01T12:30:00+05:00", 20_544),
        ("9999-12-31", 2_932_896),
    ])
    func aDayIsReadAndWritten(text: String, number: Int) {
        #expect(UTCDay(text: text) == UTCDay(number: number))
        #expect(UTCDay(number: number).description == String(text.prefix(10)))
    }

    @Test(arguments: [
        "", "2026", "2026-4-1", "2026-13-01", "2026-00-10", "2026-02-29", "2026-04-31", "2026-01-00", "1969-12-31",
        "２０２６-01-01", "2026-01-01-01", "+026-01-01", "01-01-2026", "2026/01/01", "T",
        String(repeating: "9", count: 1 << 16),
    ])
    func anythingElseIsNoDay(text: String) {
        #expect(UTCDay(text: text) == nil)
    }

    @Test func everyDayFollowsTheOneBefore() {
        for number in stride(from: 0, to: 60_000, by: 1) {
            let day = UTCDay(number: number)
            #expect(UTCDay(text: day.description) == day)
        }
        #expect(UTCDay(containing: Date(timeIntervalSince1970: 86_399.9)).number == 0)
        #expect(UTCDay(containing: Date(timeIntervalSince1970: 86_400)).number == 1)
    }
}

@Suite struct DailyUsageTests {
    private let period = UTCDay(number: 10)...UTCDay(number: 12)

    private func day(_ number: Double) -> Date {
        Date(timeIntervalSince1970: number * 86_400)
    }

    @Test(arguments: [
        (10.5, 10.75, [0.25, 0, 0]), (10.5, 11.5, [0.5, 0.5, 0]), (9, 20, [1, 1, 1]), (8, 10, [0, 0, 0]),
        (13, 14, [0, 0, 0]), (12, 13, [0, 0, 1]), (11.5, 11.5, [0, 0, 0]), (11.5, 11.25, [0, 0, 0]),
        (12.5, 10.5, [0, 0, 0]),
    ])
    func aVMCountsOnTheDaysThatItLived(from: Double, to: Double, days: [Double]) {
        var usage = DailyUsage(period)
        usage.add(from: day(from), to: day(to), vcpuCount: 2, memoryMB: 512)
        #expect(usage.days.map { $0.vmSeconds / 86_400 } == days)
        #expect(usage.total.vcpuSeconds == usage.total.vmSeconds * 2)
        #expect(usage.total.memoryGiBSeconds == usage.total.vmSeconds / 2)
    }
}

@Suite struct VMRecordTests {
    private let sessions: SessionStore
    private let usage: UsageStore
    private let owner: UserID
    private let other: UserID
    private let start = Date(timeIntervalSince1970: 1_700_000_000)

    init() async throws {
        let database = try Database.inMemory()
        sessions = SessionStore(database)
        usage = UsageStore(database)
        let users = UserStore(database)
        owner = try await users.create(email: "a@example.org").id
        other = try await users.create(email: "b@example.org").id
    }

    private func insert(owner: UserID? = nil, createdAt: Date? = nil) async throws -> SessionID {
        let record = SessionRecord(
            id: .random(),
            owner: owner ?? self.owner,
            createdAt: createdAt ?? start,
            vmLifetimeSeconds: 60,
            memoryMB: 2_048,
            vcpuCount: 4
        )
        try await sessions.insert(record)
        return record.id
    }

    private func vm(_ id: String, at moment: Date? = nil) -> SessionVM {
        let moment = moment ?? start
        return SessionVM(id: id, startedAt: moment, expiresAt: moment.addingTimeInterval(60))
    }

    @Test func aSessionsUsageIsThatOfAllItsVMs() async throws {
        let session = try await insert()
        _ = try await sessions.assign(vm: vm("vm-1"), to: session)
        try await sessions.endVM(session: session, vmID: "vm-1", at: start + 10, reason: "x", origin: "pool")
        _ = try await sessions.assign(vm: vm("vm-2", at: start + 20), to: session)
        let other = try await insert()
        _ = try await sessions.assign(vm: vm("vm-3"), to: other)
        let found = try await usage.usage(of: session, now: start + 25)
        #expect(found.vmCount == 2)
        #expect(found.vms.vmSeconds == 15)
        #expect(found.vms.vcpuSeconds == 60)
        #expect(found.vms.memoryGiBSeconds == 30)
        #expect(try await usage.usage(of: .random()) == SessionUsage())
    }

    @Test func theDailyUsageOfAnOwnerHasNoVMsOfOthers() async throws {
        let midnight = UTCDay(containing: start).advanced(by: 1)
        let mine = try await insert()
        let theirs = try await insert(owner: other)
        _ = try await sessions.assign(vm: vm("vm-1", at: midnight.start - 30), to: mine)
        _ = try await sessions.assign(vm: vm("vm-2", at: midnight.start - 30), to: theirs)
        try await sessions.endVM(session: mine, vmID: "vm-1", at: midnight.start + 10, reason: "x")
        let days = midnight.advanced(by: -1)...midnight
        let found = try await usage.daily(of: owner, days, now: midnight.start + 20)
        #expect(found.days.map(\.vmSeconds) == [30, 10])
        #expect(try await usage.daily(of: other, days, now: midnight.start + 20).days.map(\.vmSeconds) == [30, 20])
        #expect(try await usage.daily(of: owner, midnight...midnight).days.map(\.vmSeconds) == [10])
    }

    @Test func usageOutlivesItsSession() async throws {
        let session = try await insert()
        _ = try await sessions.assign(vm: vm("vm-1"), to: session)
        #expect(try await sessions.delete(session))
        #expect(try await sessions.delete(session) == false)
        #expect(try await sessions.session(session) == nil)
        try await sessions.endVM(session: session, vmID: "vm-1", at: start + 10, reason: "x")
        #expect(try await usage.usage(of: session).vms.vmSeconds == 10)
    }

    @Test func aSessionThatIsGoneGetsNoVM() async throws {
        let session = try await insert()
        _ = try await sessions.delete(session)
        #expect(try await sessions.assign(vm: vm("vm-1"), to: session) == nil)
        #expect(try await usage.usage(of: session).vmCount == 0)
    }

    @Test func aLongerLifetimeCountsForTheLivingVM() async throws {
        let session = try await insert()
        #expect(try await sessions.update(session, SessionChange(vmLifetimeSeconds: 90))?.vm == nil)
        _ = try await sessions.assign(vm: vm("vm-1"), to: session)
        #expect(try await sessions.session(session)?.vm?.expiresAt == start + 90)
        let longer = try await sessions.update(
            session,
            SessionChange(vmLifetimeSeconds: 100, metadataJSON: "{\"a\":1}")
        )
        #expect(longer?.vmLifetimeSeconds == 100 && longer?.metadataJSON == "{\"a\":1}")
        #expect(longer?.vm?.expiresAt == start + 100)
        #expect(try await sessions.update(session, SessionChange(vmLifetimeSeconds: 99)) == nil)
        let same = try await sessions.update(session, SessionChange())
        #expect(same == longer)
        #expect(try await sessions.session(session) == longer)
        #expect(try await sessions.update(.random(), SessionChange()) == nil)
    }

    @Test func onlySessionsWithALivingVMAreLiving() async throws {
        let sessions = self.sessions
        let first = try await insert()
        let second = try await insert()
        let third = try await insert()
        _ = try await insert()
        let theirs = try await insert(owner: other)
        for (index, session) in [first, second, third, theirs].enumerated() {
            _ = try await sessions.assign(vm: vm("vm-\(index)", at: start + Double(index)), to: session)
        }
        try await sessions.endVM(session: second, vmID: "vm-1", at: start + 9, reason: "x")
        #expect(try await sessions.living(of: owner).map(\.id) == [third, first])
    }

    @Test func aStartingServerEndsOpenRows() async throws {
        let one = try await insert()
        let two = try await insert()
        _ = try await sessions.assign(vm: vm("vm-1"), to: one)
        _ = try await sessions.assign(vm: vm("vm-2", at: start + 980), to: two)
        // The first expired without being ended; it counts until its expiry.
        try await sessions.endAllVMs(at: start + 1_000, reason: "restart")
        #expect(try await usage.usage(of: one).vms.vmSeconds == 60)
        #expect(try await usage.usage(of: two).vms.vmSeconds == 20)
    }

    @Test func oldRowsAloneAreDeletedInBatches() async throws {
        var old: [SessionID] = []
        for number in 0..<7 {
            let session = try await insert()
            _ = try await sessions.assign(vm: vm("vm-\(number)"), to: session)
            try await sessions.endVM(session: session, vmID: "vm-\(number)", at: start + 10, reason: "x")
            old.append(session)
        }
        let unused = try await insert()
        let living = try await insert()
        _ = try await sessions.assign(vm: vm("vm-living"), to: living)
        let recent = try await insert(createdAt: start + 50)
        let used = try await insert()
        _ = try await sessions.assign(vm: vm("vm-used"), to: used)
        try await sessions.endVM(session: used, vmID: "vm-used", at: start + 50, reason: "x")
        var batches = 0
        var deleted: [SessionID] = []
        var hasMore = true
        while hasMore {
            let purged = try await sessions.purge(before: start + 20, limit: 3)
            deleted += purged.sessions.map(\.id)
            hasMore = purged.hasMore
            batches += 1
        }
        #expect(batches == 3)
        #expect(Set(deleted) == Set(old + [unused]))
        #expect(deleted.count == old.count + 1)
        for session in old + [unused] { #expect(try await sessions.session(session) == nil) }
        for session in [living, recent, used] { #expect(try await sessions.session(session) != nil) }
        #expect(try await usage.usage(of: old[0]).vmCount == 0)
        #expect(try await usage.usage(of: used).vmCount == 1)
        #expect(try await usage.usage(of: living).vmCount == 1)
    }
}
