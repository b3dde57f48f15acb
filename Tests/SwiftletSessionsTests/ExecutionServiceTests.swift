// SPDX-License-Identifier: Apache-2.0

import AgentClient
import AgentProtocol
import Foundation
import GRDB
import NIOCore
import SwiftletAccounts
import SwiftletCore
import SwiftletSessions
import SwiftletStore
import SwiftletTestSupport
import SwiftletVM
import Testing

@Suite(.timeLimit(.minutes(5))) struct ExecutionServiceTests {
    // MARK: A call that does not run

    @Test func aRefusedCallWithoutASessionLeavesNeitherSessionNorVM() async throws {
        try await TestServices.with(plan: #"{"concurrentVms": 1, "concurrentExecutions": 1}"#) { services in
            services.provider.startByHand()
            for number in 1...3 {
                async let refusal = services.refusal(of: services.request("1", .javascript))
                await until { services.provider.spawned.count == number }
                let vm = services.provider.spawned[number - 1]
                vm.fakeAgent.answer { $0.refuse(.noInterpreter, "no node") }
                vm.start()
                guard case .noInterpreter = await refusal else {
                    Issue.record("It was not refused")
                    return
                }
                // At the moment of the answer, not some time later.
                #expect(services.provider.living.isEmpty)
                #expect(services.admission.livingVMs(of: services.owner) == 0)
                #expect(services.admission.runningExecutions(of: services.owner) == 0)
            }
            #expect(try await services.sessions.sandboxes(owner: services.owner).isEmpty)
            let created = try await services.audited(.sessionCreated).map(\.session)
            let deleted = try await services.audited(.sessionDeleted).map(\.session)
            #expect(created.count == 3)
            #expect(created == deleted)
            for session in created {
                #expect(try await services.sessionStore.session(try #require(session)) == nil)
            }
        }
    }

    @Test(arguments: [ExecutionMode.sync, .async, .stream])
    func aCallWithoutASessionThatGetsNoVMLeavesNoSession(mode: ExecutionMode) async throws {
        try await TestServices.with { services in
            services.provider.refuse(.full(reason: "no room"))
            await #expect(throws: SessionError.self) {
                if mode == .sync {
                    _ = try await services.executions.execute(services.request(mode: mode))
                } else {
                    _ = try await services.executions.start(services.request(mode: mode))
                }
            }
            let created = try await services.audited(.sessionCreated).compactMap(\.session)
            #expect(created.count == 1)
            #expect(try await services.audited(.sessionDeleted).compactMap(\.session) == created)
            #expect(try await services.sessionStore.session(created[0]) == nil)
            #expect(try await services.executions.list(.init(owner: services.owner)).isEmpty)
        }
    }

    @Test func aRefusedCallInASessionLeavesTheSessionAndItsVM() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            services.provider.spawned[0].fakeAgent.answer { $0.refuse(.noInterpreter, "no node") }
            await #expect(throws: SessionError.self) {
                try await services.executions.execute(services.request("1", .javascript, in: session))
            }
            services.provider.spawned[0].fakeAgent.answer { $0.exit() }
            #expect(try await services.execute(in: session).vmID == "vm-1")
        }
    }

    // MARK: Turns

    @Test func callsOfAnInterpreterRunInTheOrderInWhichTheyCame() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let agent = services.provider.spawned[0].fakeAgent
            agent.holdExecutions()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<10 {
                    let execution = try await services.executions.start(
                        services.request("\(number)", in: session, mode: .async)
                    )
                    group.addTask { await services.waitForEnd(of: execution.handle) }
                }
                for number in 0..<10 {
                    let sent = await agent.executions(atLeast: number + 2)
                    #expect(sent.count == number + 2, "One runs at a time")
                    sent[number + 1].exit()
                }
                try await group.waitForAll()
            }
            #expect(agent.executions.dropFirst().map(\.source) == (0..<10).map(String.init))
        }
    }

    @Test func bashRunsBesideAPythonCall() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let agent = services.provider.spawned[0].fakeAgent
            agent.answer { if $0.language == .bash { $0.exit(7) } }
            async let python = services.execute("while True: pass", in: session)
            let sent = await agent.executions(atLeast: 2)
            let bash = try await services.executions.execute(services.request("exit 7", .bash, in: session))
            #expect(bash.result.record.exitCode == 7)
            sent[1].exit()
            #expect(try await python.state == .exited)
        }
    }

    @Test func aCallWhoseTimeEndsInTheQueueDoesNotRun() async throws {
        try await TestServices.with { services in
            services.provider.endByHand()
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let vm = services.provider.spawned[0]
            vm.fakeAgent.holdExecutions()
            async let first = services.executions.start(services.request("first", in: session, mode: .async))
            _ = await vm.fakeAgent.executions(atLeast: 2)
            let sleepers = 4
            async let second = services.executions.execute(
                services.request("second", in: session, timeout: .seconds(10))
            )
            // The lifetime, the purge, the upkeep, and the wait in the queue.
            await services.time.sleepers(atLeast: sleepers)
            services.time.advance(by: .seconds(10))
            let record = try await second.result.record
            #expect(record.state == .timedOut)
            #expect(record.note?.contains("another python call of the session was running") == true)
            #expect(record.startedAt == nil)
            #expect(vm.fakeAgent.executions.map(\.source) == ["1", "first"])
            vm.fakeAgent.executions[1].exit()
            await services.waitForEnd(of: try await first.handle)
        }
    }

    @Test func aCallWhoseTimeEndsInTheQueueSpawnsNoVM() async throws {
        try await TestServices.with { services in
            services.provider.endByHand()
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let vm = services.provider.spawned[0]
            vm.die(.guestPanic("test"))
            async let first = services.executions.execute(services.request("first", in: session, timeout: nil))
            // The watch over the VM waits for its end, and the first call does, which has its turn.
            await until { vm.endWaiters >= 2 }
            async let second = services.executions.execute(
                services.request("second", in: session, timeout: .seconds(10))
            )
            // The lifetime, the purge, the upkeep, and the wait in the queue.
            await services.time.sleepers(atLeast: 4)
            services.time.advance(by: .seconds(10))
            let record = try await second.result.record
            #expect(record.state == .timedOut && record.startedAt == nil)
            vm.vanish()
            #expect(try await first.result.record.vmID == "vm-2")
            #expect(services.provider.spawned.count == 2)
            #expect(services.provider.spawned[1].fakeAgent.executions.map(\.source) == ["first"])
        }
    }

    @Test func aCancelledCallLeavesTheQueueAndDoesNotRun() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let agent = services.provider.spawned[0].fakeAgent
            agent.holdExecutions()
            let first = try await services.executions.start(services.request("first", in: session, mode: .async))
            _ = await agent.executions(atLeast: 2)
            let second = try await services.executions.start(services.request("second", in: session, mode: .async))
            let cancelled = try await services.executions.cancel(second.handle.id, owner: services.owner)
            #expect(cancelled.state == .cancelled)
            #expect(cancelled.startedAt == nil)
            let ended = try await services.executions.cancel(first.handle.id, owner: services.owner)
            #expect(ended.state == .cancelled)
            #expect(agent.executions[1].cancellations == [.cancelled])
            #expect(agent.executions.map(\.source) == ["1", "first"])
        }
    }

    // MARK: Ends

    @Test func theExitStatusAndTheOutputAreTheGuests() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            services.provider.spawned[0].fakeAgent.answer {
                $0.print("hello\n")
                $0.exit(3)
            }
            let result = try await services.executions.execute(services.request("x", .bash, in: session)).result
            #expect(result.record.exitCode == 3)
            #expect(result.stdout.read(at: 0, upTo: 100) == Array("hello\n".utf8))
        }
    }

    @Test func aVMThatDiesUnderACallIsReportedAsLostAndTheNextCallGetsANewOne() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let vm = services.provider.spawned[0]
            vm.fakeAgent.answer { [unowned vm] in
                $0.print("partial")
                vm.die(.guestPanic("Out of cheese"))
            }
            let lost = try await services.executions.execute(services.request(in: session)).result
            #expect(lost.record.state == .vmLost)
            #expect(lost.record.note?.contains("Out of cheese") == true)
            #expect(lost.stdout.read(at: 0, upTo: 100) == Array("partial".utf8))
            let next = try await services.execute(in: session)
            #expect(next.vmID == "vm-2")
            #expect(next.state == .exited)
        }
    }

    @Test func theCallerIsAnsweredAtTheTimeoutBeforeASilentGuest() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let agent = services.provider.spawned[0].fakeAgent
            agent.holdExecutions()
            async let answered = services.executions.execute(services.request("loop", in: session))
            let run = await agent.executions(atLeast: 2)[1]
            run.reachDeadline()
            let record = try await answered.result.record
            #expect(record.state == .timedOut)
            #expect(record.exitCode == 124)
            #expect(run.cancellations == [.timeout])
            // The interpreter is free only when the guest has confirmed the end.
            run.exit(124, .timedOut)
            agent.answer { $0.exit() }
            #expect(try await services.execute(in: session).vmID == "vm-1")
        }
    }

    @Test func anAgentThatDoesNotEndTheCodeCostsItsOwnerTheVM() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let vm = services.provider.spawned[0]
            vm.fakeAgent.holdExecutions()
            async let answered = services.executions.execute(services.request("loop", in: session))
            let run = await vm.fakeAgent.executions(atLeast: 2)[1]
            run.reachDeadline()
            run.reachDeadline()
            #expect(try await answered.result.record.state == .timedOut)
            #expect(try await vm.waitForEnd() == .killed(reason: "Its agent did not end an execution that was over"))
        }
    }

    // MARK: Idempotency

    @Test func fiftyRequestsWithOneKeyRunOnce() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            let results = try await withThrowingTaskGroup(of: (ExecutionID, Bool).self) { group in
                for _ in 0..<50 {
                    group.addTask {
                        let answer = try await services.executions.execute(
                            services.request("once", in: session, key: "k")
                        )
                        return (answer.result.record.id, answer.isReplay)
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(Set(results.map(\.0)).count == 1)
            #expect(results.count { !$0.1 } == 1)
            #expect(services.provider.spawned[0].fakeAgent.executions.count == 1)
        }
    }

    @Test func aKeyWithAnotherRequestIsRefused() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.executions.execute(services.request("one", in: session, key: "k"))
            await #expect {
                try await services.executions.execute(services.request("two", in: session, key: "k"))
            } throws: { error in
                if case SessionError.idempotencyMismatch = error { true } else { false }
            }
        }
    }

    // MARK: Records

    @Test func anExecutionOfTheLastServerHasEndedBeforeAnyRequest() async throws {
        let left = ExecutionID.random()
        try await TestServices.with { services in
            let record = ExecutionRecord(
                id: left,
                owner: services.owner,
                session: .random(),
                language: "python",
                mode: .async,
                createdAt: Date(timeIntervalSince1970: 1_600_000_000),
                timeout: nil
            )
            _ = try await services.executionStore.insert(record)
        } _: { services in
            let record = try await services.executions.record(of: left, owner: services.owner)
            #expect(record.state == .nodeLost)
            #expect(record.note?.contains("its code may not have run") == true)
        }
    }

    @Test func aRecordThatCannotBeWrittenKeepsNoOtherBack() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            let agent = services.provider.spawned[0].fakeAgent
            agent.holdExecutions()
            var handles: [ExecutionHandle] = []
            for _ in 0..<3 {
                let request = services.request("x", .bash, in: session, mode: .async)
                handles.append(try await services.executions.start(request).handle)
            }
            let database = try services.secondConnection()
            try await database.write { [ids = handles.map(\.id)] database in
                for (number, id) in ids.enumerated() {
                    try database.execute(
                        sql: """
                            CREATE TRIGGER refuse\(number) BEFORE UPDATE ON executions
                            WHEN NEW.id = '\(id)' AND NEW.state = 'exited'
                            BEGIN SELECT RAISE(ABORT, 'test'); END
                            """
                    )
                }
            }
            for run in await agent.executions(atLeast: 4).dropFirst() { run.exit() }
            for handle in handles { await services.waitForEnd(of: handle) }
            // From now on the database takes the first and the last, and not the one between them.
            try await database.write { database in
                for number in [0, 2] { try database.execute(sql: "DROP TRIGGER refuse\(number)") }
            }
            let (first, broken, last) = (handles[0].id, handles[1].id, handles[2].id)
            try await until {
                services.time.advance(by: .milliseconds(500))
                let states = try await [first, last].asyncMap {
                    try await services.executionStore.execution($0, owner: services.owner)?.state
                }
                return states == [.exited, .exited]
            }
            let kept = try await services.executionStore.execution(broken, owner: services.owner)
            #expect(kept?.state != .exited)
            #expect(try await services.executions.record(of: broken, owner: services.owner).state == .exited)
        }
    }

    @Test func aStopEndsWhatRunsAndTellsWhatItCutOff() async throws {
        try await TestServices.with { services in
            let session = try await services.session()
            _ = try await services.execute(in: session)
            services.provider.spawned[0].fakeAgent.holdExecutions()
            let running = try await services.executions.start(services.request("loop", in: session, mode: .async))
            _ = await services.provider.spawned[0].fakeAgent.executions(atLeast: 2)
            let cut = await services.executions.drain(within: .zero)
            #expect(cut.map(\.id) == [running.handle.id])
            #expect(running.handle.record.state == .cancelled)
            await #expect(throws: SessionError.self) { try await services.execute(in: session) }
        }
    }
}

extension TestServices {
    /// Why a request was refused; nil when it was not.
    func refusal(of request: ExecutionRequest) async -> SessionError? {
        do {
            _ = try await executions.execute(request)
            return nil
        } catch {
            return error as? SessionError
        }
    }

    /// Waits for the end of an execution.
    func waitForEnd(of handle: ExecutionHandle) async {
        while case let version = handle.version, !handle.isFinal {
            await handle.waitForChange(after: version, within: .seconds(60))
        }
    }
}

extension Array {
    fileprivate func asyncMap<Value>(_ body: (Element) async throws -> Value) async rethrows -> [Value] {
        var values: [Value] = []
        for element in self { values.append(try await body(element)) }
        return values
    }
}
