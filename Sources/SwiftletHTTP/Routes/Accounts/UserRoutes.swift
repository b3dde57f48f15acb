// SPDX-License-Identifier: Apache-2.0

import Hummingbird
import SwiftletAccounts
import SwiftletCore
import SwiftletJSON

/// The caller's account, and the remainder of the plan's limits.
struct UserRoutes: Sendable {
    let authenticator: Authenticator

    var routes: [Route] {
        [
            Route(.get, "/v1/users/me", .me, me),
            Route(.get, "/v1/users/me/limits", .limits, limits),
        ]
    }

    /// `GET /v1/users/me`
    private func me(_ request: Request, _ context: AppContext) async throws -> Response {
        let account = try await authenticator.principal(request.headers).account
        return Response(json: [
            "id": .integer(Int(account.id.rawValue)),
            "email": .string(account.email),
            "name": .string(account.name),
            // The operator who adds a user is trusted with the address.
            "is_verified": .bool(true),
            "plan": .string(account.planName),
        ])
    }

    /// `GET /v1/users/me/limits`
    private func limits(_ request: Request, _ context: AppContext) async throws -> Response {
        let principal = try await authenticator.principal(request.headers)
        let plan = principal.plan
        let accounts = authenticator.accounts
        let living = accounts.admission.livingVMs(of: principal.user)
        let running = accounts.admission.runningExecutions(of: principal.user)
        return Response(json: [
            "plan": .string(plan.name),
            "requests": try await rate(plan.requests, Authenticator.requests(of: principal.user)),
            "new_vms": try await rate(plan.newVMs, Admission.newVMs(of: principal.user)),
            "concurrent_vms": Self.share(living, of: plan.concurrentVMs),
            "concurrent_executions": Self.share(running, of: plan.concurrentExecutions),
            "vm_lifetime_seconds": .init(plan.vmLifetimeSeconds),
            "memory_mb": .init(plan.memoryMB),
            "vcpu_count": .init(plan.vcpuCount),
            "disk_mb": .init(plan.diskMB),
            "output_bytes": .init(plan.outputLimitBytes),
            "egress": .bool(plan.allowsEgress),
        ])
    }

    private static func share(_ used: Int, of limit: Int?) -> JSONValue {
        [
            "limit": .init(limit), "used": .integer(used), "remaining": .init(limit.map { max(0, $0 - used) }),
        ]
    }

    /// A rate limit and its remainder; null for none.
    private func rate(_ rate: Plan.Rate?, _ name: String) async throws -> JSONValue {
        guard let rate else { return .null }
        let status = try await authenticator.accounts.limiter.status(name, rate)
        return [
            "per_minute": .integer(rate.perMinute),
            "burst": .integer(rate.burst),
            "remaining": .integer(status.remaining),
            "reset_seconds": .number(status.resetAfter),
        ]
    }
}

extension JSONValue {
    /// A whole number, or null.
    init(_ value: Int?) {
        self = value.map { .integer($0) } ?? .null
    }
}
