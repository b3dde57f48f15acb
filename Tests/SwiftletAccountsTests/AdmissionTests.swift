// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletAccounts
import SwiftletCore
import SwiftletMetrics
import SwiftletStore
import SwiftletTestSupport
import Testing

@Suite struct AdmissionTests {
    private let users: UserStore
    private let admission: Admission

    init() throws {
        let json = """
            {"few": {"concurrentVms": 3, "concurrentExecutions": 2}, "slow": {"newVmsPerMinute": 1, "newVmBurst": 2}, "none": {"concurrentVms": 0},
             "free": {"vmLifetimeSeconds": 3600, "memoryMb": 512, "vcpuCount": 2}}
            """
        let database = try Database.inMemory()
        users = UserStore(database)
        let plans = try PlanCatalog(json: Data(json.utf8))
        let accounts = AccountLookup(database, plans: plans, life: .zero)
        admission = Admission(accounts: accounts, limiter: RateLimiter(database, now: TestClock().read))
    }

    private func user(_ plan: String) async throws -> UserID {
        try await users.create(email: "\(UUID())@example.org", plan: plan).id
    }

    /// What many attempts at once get.
    private func reserved(_ user: UserID, attempts: Int) async -> [VMReservation] {
        await withTaskGroup(of: VMReservation?.self) { group in
            for _ in 0..<attempts {
                // A refused attempt reserves nothing.
                group.addTask { [admission] in try? await admission.reserve(for: user) }
            }
            return await group.reduce(into: []) { all, reservation in if let reservation { all.append(reservation) } }
        }
    }

    /// How many refusals monitoring sees.
    private func refusals(_ limit: String) -> Double? {
        admission.refusals.family.samples.first { $0.labels == ["limit": limit] }?.value
    }

    @Test func ofManyAtOnceExactlyThePlansNumberGetsAVM() async throws {
        let user = try await user("few")
        let reservations = await reserved(user, attempts: 200)
        #expect(reservations.count == 3)
        #expect(refusals("concurrent_vms") == 197)
        #expect(admission.livingVMs(of: user) == 3)
        // The first release frees the reservation, and later ones do nothing.
        for _ in 0..<3 { reservations[0].release() }
        let more = await reserved(user, attempts: 200)
        #expect(more.count == 1)
        for reservation in reservations + more { reservation.release() }
        #expect(admission.livingVMs(of: user) == 0)
    }

    @Test func ofManyAtOnceExactlyThePlansNumberOfExecutionsIsTakenIn() async throws {
        let user = try await user("few")
        let taken = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<200 {
                // A refusal is one less.
                group.addTask { [admission] in (try? await admission.executionBegins(for: user)) != nil }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(taken == 2)
        #expect(refusals("concurrent_executions") == 198)
        #expect(admission.runningExecutions(of: user) == 2)
        admission.executionEnded(for: user)
        #expect(try await admission.executionBegins(for: user).name == "few")
        admission.executionEnded(for: user)
        admission.executionEnded(for: user)
        #expect(admission.runningExecutions(of: user) == 0)
    }

    @Test func aSessionThatIsLargerThanThePlanHasBecomeGetsNoVM() async throws {
        let user = try await user("free")
        await #expect(throws: AdmissionError.self) {
            try await admission.reserve(for: user, options: SessionOptions(memoryMB: 1_024))
        }
        #expect(admission.livingVMs(of: user) == 0)
    }

    @Test func aPlanThatCannotBeFoundAdmitsNothing() async throws {
        let user = try await user("gold")
        let error = await #expect(throws: AdmissionError.self) { try await admission.reserve(for: user) }
        guard case .limitsUnavailable = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func onesVMsAreNotAnothers() async throws {
        let (one, two) = (try await user("few"), try await user("few"))
        #expect(await reserved(one, attempts: 10).count == 3)
        #expect(await reserved(two, attempts: 10).count == 3)
    }

    @Test func aRefusalByTheRateGivesItsReservationBack() async throws {
        let user = try await user("slow")
        #expect(await reserved(user, attempts: 50).count == 2)
        #expect(admission.livingVMs(of: user) == 2)
        let error = await #expect(throws: AdmissionError.self) { try await admission.reserve(for: user) }
        guard case .quotaExceeded(let reason, let limit) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains("1 new VMs per minute"))
        #expect(limit.limit == 2 && limit.remaining == 0)
        #expect(limit.retryAfter > 0 && limit.retryAfter <= 60)
    }

    @Test func aPlanWithoutLimitsHasNone() async throws {
        let user = try await user("unlimited")
        #expect(await reserved(user, attempts: 500).count == 500)
        let options = SessionOptions(vmLifetimeSeconds: 86_400, memoryMB: 8_192, vcpuCount: 8)
        try admission.check(options, plan: try await admission.plan(of: user))
    }

    @Test func aPlanOfNoVMsHasNone() async throws {
        #expect(await reserved(try await user("none"), attempts: 5).count == 0)
    }

    @Test(arguments: [
        (SessionOptions(vmLifetimeSeconds: 3_601), "VM lifetime cannot exceed 3600s on the free tier"),
        (SessionOptions(memoryMB: 513), "Configurable memory ends at 512 MB on the free tier"),
        (SessionOptions(vcpuCount: 4), "Configurable CPU ends at 2 vCPUs on the free tier"),
    ])
    func aRequestLargerThanThePlanIsRefusedWithTheMessageThatClientsRecognise(options: SessionOptions, message: String)
        async throws
    {
        let plan = try await admission.plan(of: try await user("free"))
        let error = #expect(throws: AdmissionError.self) { try admission.check(options, plan: plan) }
        #expect(error?.description == message)
    }

    @Test func aRequestAsLargeAsThePlanIsAdmitted() async throws {
        let plan = try await admission.plan(of: try await user("free"))
        try admission.check(SessionOptions(vmLifetimeSeconds: 3_600, memoryMB: 512, vcpuCount: 2), plan: plan)
        try admission.check(SessionOptions(), plan: plan)
    }
}
