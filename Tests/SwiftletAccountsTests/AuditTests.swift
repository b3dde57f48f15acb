// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import SwiftletAccounts
import SwiftletCore
import SwiftletStore
import SwiftletTestSupport
import Synchronization
import Testing

@Suite struct AuditTests {
    private static let start = Date(timeIntervalSince1970: 1_700_000_000)
    private let ada = UserID(rawValue: 1)
    private let bob = UserID(rawValue: 2)

    private static var logger: Logger {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        return logger
    }

    private func refusal(from address: String, at moment: Date = start) -> AuditEvent {
        var event = AuditEvent(.credentialRefused, .denied, by: .anonymous, at: moment)
        event.address = address
        return event
    }

    private final class Flag: Sendable {
        let value = Mutex(true)
    }

    @Test func anEventComesBackAsItWas() async throws {
        let store = AuditStore(try Database.inMemory())
        var event = AuditEvent(.executionCreated, .failure, by: .user(ada), owner: ada, at: Self.start)
        event.credential = "key:7"
        event.address = "2001:db8::/64"
        event.requestID = "r1"
        event.session = .random()
        event.vmID = "vm-x"
        event.resourceID = "exec-1"
        event.details = ["language": .text("py\"thon\n"), "count": .number(3)]
        event.message = "no"
        try await store.append([event, AuditEvent(.serverStarted, by: .system)])
        #expect(try await store.event(event.id, owner: ada) == event)
        #expect(try await store.event(event.id, owner: bob) == nil)
        let all = try await store.list(.init(owner: nil))
        #expect(all.map(\.actor) == [.system, .user(ada)])
        #expect(try await store.list(.init(owner: ada)) == [event])
    }

    @Test func everyTypeHasAGroupAndIsInTheCatalogOnce() {
        let types = AuditEventType.catalog.flatMap { group, types in types.filter { $0.hasPrefix(group + ".") } }
        #expect(types.sorted() == AuditEventType.allCases.map(\.rawValue).sorted())
    }

    @Test func filtersTakeOutWhatTheySay() async throws {
        let store = AuditStore(try Database.inMemory())
        let session = SessionID.random()
        var created = AuditEvent(.sessionCreated, by: .user(ada), owner: ada, at: Self.start)
        created.session = session
        var vm = AuditEvent(.vmStarted, .error, by: .system, owner: ada, at: Self.start + 10)
        vm.vmID = "vm-a"
        let other = AuditEvent(.sessionCreated, by: .user(bob), owner: bob, at: Self.start + 20)
        try await store.append([created, vm, other])
        func found(_ change: (inout AuditStore.Filter) -> Void) async throws -> [AuditEventID] {
            var filter = AuditStore.Filter(owner: nil)
            change(&filter)
            return try await store.list(filter).map(\.id)
        }
        #expect(try await found { $0.group = "session" } == [other.id, created.id])
        #expect(try await found { $0.type = .vmStarted } == [vm.id])
        #expect(try await found { $0.status = .error } == [vm.id])
        #expect(try await found { $0.session = session } == [created.id])
        #expect(try await found { $0.vmID = "vm-a" } == [vm.id])
        #expect(try await found { $0.since = Self.start + 10 } == [other.id, vm.id])
        #expect(try await found { $0.owner = ada } == [vm.id, created.id])
        #expect(try await found { $0.after = created.id } == [vm.id, other.id])
        #expect(try await found { $0.before = vm.id } == [created.id])
        #expect(try await found { $0.before = .random() } == [])
    }

    @Test func pagesStayTheSameWhileMoreComes() async throws {
        let store = AuditStore(try Database.inMemory())
        let events = (0..<25).map { number in
            AuditEvent(.sessionCreated, by: .user(ada), owner: ada, at: Self.start + Double(number))
        }
        try await store.append(events)
        var filter = AuditStore.Filter(owner: ada, limit: 10)
        var seen: [AuditEventID] = []
        while true {
            let page = try await store.list(filter)
            seen += page.map(\.id)
            try await store.append([AuditEvent(.sessionCreated, by: .user(ada), owner: ada)])
            guard page.count == filter.limit else { break }
            filter.before = page.last?.id
        }
        #expect(seen == events.reversed().map(\.id))
    }

    @Test func textsAreTruncatedAtAWholeCharacter() {
        var event = AuditEvent(.fileUploaded, by: .user(ada))
        event.resourceID = "a" + String(repeating: "é", count: 10_000)
        event.message = String(repeating: "x", count: 10_000)
        event.details = Dictionary(uniqueKeysWithValues: (0..<100).map { ("k\($0)", .text(event.message ?? "")) })
        #expect(event.resourceID?.utf8.count == 255)
        #expect(event.resourceID?.last == "é")
        #expect(event.message?.utf8.count == 256)
        #expect(event.details.count == 16)
        #expect(event.details.values.allSatisfy { $0 == .text(event.message ?? "") })
    }

    @Test func oldEventsGoAndOfTheFrequentTheManyToo() async throws {
        let store = AuditStore(try Database.inMemory())
        let old = AuditEvent(.keyCreated, by: .operator, owner: ada, at: Self.start)
        let key = AuditEvent(.keyRevoked, by: .operator, owner: ada, at: Self.start + 100)
        let files = (0..<20).map { AuditEvent(.fileUploaded, by: .user(ada), at: Self.start + 200 + Double($0)) }
        try await store.append([old, key] + files)
        while try await store.purge(before: Self.start + 50, keeping: 5, limit: 3) {}
        #expect(try await store.list(.init(owner: nil)).map(\.id) == files.suffix(5).reversed().map(\.id) + [key.id])
    }

    @Test func pendingEventsAreWrittenInOrderAndARecordFlushesThem() async throws {
        let log = AuditBuffer(AuditStore(try Database.inMemory()), logger: Self.logger)
        let first = AuditEvent(.sessionCreated, by: .user(ada), owner: ada)
        log.append(first)
        #expect(try await log.store.list(.init(owner: nil)).isEmpty)
        let second = AuditEvent(.keyCreated, by: .user(ada), owner: ada)
        await log.record(second)
        #expect(try await log.store.list(.init(owner: nil)).map(\.id) == [second.id, first.id])
    }

    @Test func aFloodOfRefusalsIsTwoRowsAMinuteAndNoneIsForgotten() async throws {
        let log = AuditBuffer(AuditStore(try Database.inMemory()), logger: Self.logger)
        #expect(log.appendRefusal(refusal(from: "192.0.2.1")))
        for _ in 0..<999 { #expect(!log.appendRefusal(refusal(from: "192.0.2.1"))) }
        log.appendRefusal(refusal(from: "192.0.2.2"))
        await log.flush(at: Self.start + 59)
        #expect(try await log.store.list(.init(owner: nil)).count == 2)
        await log.flush(at: Self.start + 60)
        let all = try await log.store.list(.init(owner: nil))
        #expect(all.count == 3)
        #expect(all.first?.details == ["repeated": .number(999)])
        #expect(all.first?.address == "192.0.2.1")
        #expect(all.first?.createdAt == Self.start + 60)
        // The minute is over: the next is written again.
        #expect(log.appendRefusal(refusal(from: "192.0.2.1", at: Self.start + 61)))
    }

    @Test func aFloodFromEverywhereIsBoundedToo() async throws {
        let log = AuditBuffer(AuditStore(try Database.inMemory()), logger: Self.logger)
        for number in 0..<10_000 { log.appendRefusal(refusal(from: "address \(number)")) }
        await log.flush(at: Self.start + 1, isLast: true)
        var filter = AuditStore.Filter(owner: nil, limit: 20_000)
        let all = try await log.store.list(filter)
        #expect(all.count == 2_002)
        let counted = all.reduce(0) { sum, event in
            if case .number(let count) = event.details["repeated"] { sum + count } else { sum + 1 }
        }
        #expect(counted == 10_000)
        filter.limit = 1
        #expect(try await log.store.list(filter).first?.address == nil)
    }

    @Test func recordWaitsForTheEventsThatAnotherFlushTook() async throws {
        let store = AuditStore(try Database.inMemory())
        let (began, beginning) = AsyncStream<Void>.makeStream()
        let (gate, opening) = AsyncStream<Void>.makeStream()
        let isFirst = Flag()
        let log = AuditBuffer(store, logger: Self.logger) { events in
            if isFirst.value.withLock({ first in
                defer { first = false }; return first
            }) {
                beginning.yield()
                for await _ in gate { break }
            }
            try await store.append(events)
        }
        let event = AuditEvent(.keyRevoked, by: .user(ada), owner: ada)
        log.append(event)
        let flush = Task { await log.flush() }
        for await _ in began { break }
        // The flush has taken the event, and has not written it. A caller that must answer when it is durable has to wait.
        let isRecorded = Locked(false)
        let second = AuditEvent(.keyCreated, by: .user(ada), owner: ada)
        let caller = Task {
            await log.record(second)
            isRecorded.withLock { $0 = true }
            return try await store.list(.init(owner: ada)).map(\.id)
        }
        for _ in 0..<100 { await Task.yield() }
        #expect(!isRecorded.value)
        opening.yield()
        #expect(try await Set(caller.value) == [event.id, second.id])
        await flush.value
    }

    @Test func aFlushThatFindsNothingWaitsForTheFlushThatTookTheEvents() async throws {
        let store = AuditStore(try Database.inMemory())
        let (began, beginning) = AsyncStream<Void>.makeStream()
        let (gate, opening) = AsyncStream<Void>.makeStream()
        let log = AuditBuffer(store, logger: Self.logger) { events in
            beginning.yield()
            for await _ in gate { break }
            try await store.append(events)
        }
        log.append(AuditEvent(.keyRevoked, by: .user(ada), owner: ada))
        let first = Task { await log.flush() }
        for await _ in began { break }
        let isOver = Locked(false)
        let second = Task {
            await log.flush()
            isOver.withLock { $0 = true }
        }
        for _ in 0..<100 { await Task.yield() }
        #expect(!isOver.value)
        opening.yield()
        await second.value
        #expect(try await store.list(.init(owner: ada)).count == 1)
        await first.value
    }

    @Test func withoutADatabaseEventsWaitAndBeyondABoundAreCounted() async throws {
        let store = AuditStore(try Database.inMemory())
        let isBroken = Flag()
        let log = AuditBuffer(store, logger: Self.logger, maximumWaiting: 1_000) { events in
            if isBroken.value.withLock({ $0 }) { throw StoreError("The disk is full") }
            try await store.append(events)
        }
        for _ in 0..<1_010 { log.append(AuditEvent(.fileRemoved, by: .user(ada), owner: ada)) }
        #expect(log.droppedCount == 10)
        await log.flush()
        #expect(try await store.list(.init(owner: ada)).isEmpty)
        isBroken.value.withLock { $0 = false }
        await log.flush()
        #expect(log.droppedCount == 10)
        #expect(try await store.list(.init(owner: ada, limit: 2_000)).count == 1_000)
    }

    @Test func keysThatOpenNothingAnyMoreAreForgottenAfterTheirTime() async throws {
        let database = try Database.inMemory()
        let user = try await UserStore(database).create(email: "a@example.org")
        let keys = APIKeyStore(database)
        var made: [APIKey] = []
        for label in ["revoked", "expired", "valid", "last"] {
            let expiry = label == "expired" ? Date().addingTimeInterval(-10) : nil
            made.append(try await keys.create(for: user.id, label: label, expiresAt: expiry).key)
        }
        _ = try await keys.revoke(made[0].id)
        _ = try await keys.revoke(made[3].id)
        _ = try await keys.purge(before: Date().addingTimeInterval(-60))
        #expect(try await keys.list().count == 4)
        _ = try await keys.purge(before: Date().addingTimeInterval(60))
        // The last one's number must not be given again.
        #expect(try await keys.list().map(\.label) == ["valid", "last"])
    }
}
