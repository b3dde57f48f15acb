// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import Foundation
import NIOCore
import SwiftletAccounts
import SwiftletCore
import SwiftletSessions
import SwiftletStore
import SwiftletTestSupport
import SwiftletVM
import Testing

@Suite(.timeLimit(.minutes(5))) struct SessionServiceTests {
    // MARK: One VM a session

    @Test func aHundredCallsAtOnceGetOneVM() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            let vms = try await withThrowingTaskGroup(of: String?.self) { group in
                for _ in 0..<100 {
                    group.addTask {
                        try await services.executions.execute(services.request("true", .bash, in: session))
                            .result.record.vmID
                    }
                }
                return try await group.reduce(into: Set<String?>()) { $0.insert($1) }
            }
            #expect(vms == ["vm-1"])
            #expect(services.provider.spawned.count == 1)
        }
    }

    @Test func aNewVMIsSpawnedOnlyWhenNothingIsLeftOfTheLast() async throws {
        try await TestServices.with { services in
            services.provider.endByHand()
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let first = services.provider.spawned[0]
            first.die(.guestPanic("test"))
            async let second = services.execute(in: session)
            for _ in 0..<1_000 { await Task.yield() }
            #expect(services.provider.spawned.count == 1)
            first.vanish()
            #expect(try await second.vmID == "vm-2")
        }
    }

    @Test func aVMThatCannotBeHadIsAnErrorAndTheNextCallTriesAgain() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            services.provider.refuse(.full(reason: "no room"))
            await #expect { try await services.execute(in: session) } throws: { error in
                guard case SessionError.overloaded(let reason, _) = error else { return false }
                return reason == "no room"
            }
            services.provider.refuse(nil)
            #expect(try await services.execute(in: session).state == .exited)
        }
    }

    // MARK: Lifetimes

    @Test func aVMLivesExactlyItsLifetimeAndTheNextCallGetsAFreshOne() async throws {
        try await TestServices.with { services in
            let session = try await services.session(lifetime: 60)
            let before = try await services.execute(in: session)
            let vm = services.provider.spawned[0]
            await services.time.sleepers(atLeast: 1)
            services.time.advance(by: .seconds(59))
            #expect(try await services.execute(in: session).vmID == before.vmID)
            #expect(vm.end == nil)
            await services.time.sleepers(atLeast: 1)
            services.time.advance(by: .seconds(1))
            #expect(try await vm.waitForEnd() == .killed(reason: "Its lifetime of 60 s ended"))
            let after = try await services.execute(in: session)
            #expect(after.vmID == "vm-2")
            #expect(after.vmStartedAt != before.vmStartedAt)
        }
    }

    @Test func aLifetimeThatWasMadeLongerCountsForTheLivingVM() async throws {
        try await TestServices.with { services in
            let session = try await services.session(lifetime: 60)
            _ = try await services.execute(in: session)
            let vm = services.provider.spawned[0]
            await services.time.sleepers(atLeast: 1)
            _ = try await services.sessions.update(session, owner: services.owner, .init(vmLifetimeSeconds: 120))
            services.time.advance(by: .seconds(60))
            await services.time.sleepers(atLeast: 1)
            #expect(vm.end == nil)
            services.time.advance(by: .seconds(60))
            #expect(try await vm.waitForEnd() == .killed(reason: "Its lifetime of 120 s ended"))
        }
    }

    @Test(arguments: [-86_400.0, 86_400.0])
    func settingTheWallClockChangesNoLifetime(seconds: Double) async throws {
        try await TestServices.with { services in
            let session = try await services.session(lifetime: 60)
            _ = try await services.execute(in: session)
            let vm = services.provider.spawned[0]
            await services.time.sleepers(atLeast: 1)
            services.time.setWallClock(off: seconds)
            services.time.advance(by: .seconds(59))
            #expect(try await services.execute(in: session).vmID == "vm-1")
            #expect(vm.end == nil)
            let status = try await services.sessions.status(of: session, owner: services.owner)
            #expect(status.expiresIn == 1)
            #expect(status.uptime == 59)
            services.time.advance(by: .seconds(1))
            _ = try await vm.waitForEnd()
        }
    }

    // MARK: Deletion

    @Test func aDeletedSessionEndsItsVMAndIsNotFound() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            try await services.sessions.delete(session, owner: services.owner)
            #expect(services.provider.living.isEmpty)
            await #expect(throws: SessionError.self) { try await services.execute(in: session) }
            #expect(services.provider.spawned.count == 1)
        }
    }

    @Test func anotherUsersSessionIsNotFound() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            let stranger = UserID(rawValue: 99)
            await #expect(throws: SessionError.self) {
                try await services.sessions.status(of: session, owner: stranger)
            }
            await #expect(throws: SessionError.self) { try await services.sessions.kill(session, owner: stranger) }
            await #expect(throws: SessionError.self) { try await services.sessions.delete(session, owner: stranger) }
        }
    }

    @Test func aSessionThatIsPurgedAfterItsRetentionTimeIsAuditedAsDeleted() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            // The hourly purge sleeps.
            await services.time.sleepers(atLeast: 1)
            services.time.advance(by: .seconds(91 * 86_400))
            try await until { try await services.sessionStore.session(session) == nil }
            try await until { try await services.audited(.sessionDeleted).count == 1 }
            #expect(try await services.audited(.sessionDeleted).first?.session == session)
        }
    }

    // MARK: Places in a plan

    @Test func theNextVMCanBeHadAsSoonAsOneWasKilled() async throws {
        try await TestServices.with(plan: #"{"concurrentVms": 1}"#) { services in
            let (one, two) = (try await services.session(), try await services.session())
            _ = try await services.execute(in: one)
            await #expect(throws: SessionError.self) { try await services.execute(in: two) }
            for _ in 0..<20 {
                _ = try await services.sessions.kill(one, owner: services.owner)
                _ = try await services.execute(in: one)
            }
            _ = try await services.sessions.kill(one, owner: services.owner)
            #expect(try await services.execute(in: two).state == .exited)
        }
    }

    // MARK: Recovery and shutdown

    @Test func vmsOfTheLastServerHaveEndedBeforeAnyRequest() async throws {
        let left = SessionID.random()
        try await TestServices.with { services in
            let moment = Date(timeIntervalSince1970: 1_600_000_000)
            try await services.sessionStore.insert(
                SessionRecord(
                    id: left,
                    owner: services.owner,
                    createdAt: moment,
                    vmLifetimeSeconds: 300,
                    memoryMB: 512,
                    vcpuCount: 2,
                    environment: [:],
                    metadataJSON: "{}"
                )
            )
            let vm = SessionVM(id: "vm-left", startedAt: moment, expiresAt: moment.addingTimeInterval(300))
            _ = try await services.sessionStore.assign(vm: vm, to: left)
        } _: { services in
            let status = try await services.sessions.status(of: left, owner: services.owner)
            #expect(status.vm == .killed)
            #expect(try await services.audited(.vmTerminated).map(\.vmID) == ["vm-left"])
        }
    }

    @Test func aCancelledOperationOnAFileFreesItsSlot() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            let file = FileLocation(session: session, owner: services.owner, path: Array("/app/a".utf8))
            let limit = SessionService.Configuration().maximumTransfersPerSession
            // The slots of the round before are freed by a task of the service.
            @Sendable func retrying<Result>(_ body: () async throws -> Result) async throws -> Result {
                while true {
                    do { return try await body() } catch SessionError.overloaded { await Task.yield() }
                }
            }
            for round in 1...3 {
                let reads = (0..<limit - 1).map { _ in
                    Task { _ = try await retrying { try await services.sessions.read(file) } }
                }
                let write = Task {
                    let upload = try await retrying { try await services.sessions.write(file, .init()) }
                    try await upload.write(ByteBuffer(string: "a"))
                }
                await until { services.provider.spawned.first?.fakeAgent.files.count == limit * round }
                let files = services.provider.spawned[0].fakeAgent.files.suffix(limit)
                let written = try #require(files.first { $0.request.operation == .write })
                written.send(.opened(FileStatus(kind: .regular, mode: 0o644, size: 0)))
                await until { written.writes == 1 }
                await #expect(throws: SessionError.self) { try await services.sessions.status(of: file) }
                for task in reads + [write] {
                    task.cancel()
                    await #expect(throws: CancellationError.self) { try await task.value }
                }
                for file in files { #expect(file.isCancelled) }
            }
        }
    }

    @Test func operationsOnFilesAreRefusedWhileTheServerDrains() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let file = FileLocation(session: session, owner: services.owner, path: Array("/app/a".utf8))
            await services.sessions.stopAccepting()
            await #expect { try await services.sessions.status(of: file) } throws: { error in
                if case SessionError.shuttingDown = error { true } else { false }
            }
            await #expect(throws: SessionError.self) { try await services.sessions.read(file) }
            await #expect(throws: SessionError.self) { try await services.sessions.write(file, .init()) }
            await #expect(throws: SessionError.self) { try await services.sessions.remove(file, recursive: false) }
            #expect(services.provider.spawned[0].fakeAgent.files.isEmpty)
        }
    }
}
