// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import NIOPosix
import SwiftletStore

/// Checks who logs in with a password.
struct LogIn: Sendable {
    /// Attempts from one household, good or bad: what is over this never reaches the count of failures.
    private static let rate = Plan.Rate(perMinute: 60, burst: 60)
    private static let maximumEmail = 254

    let users: UserStore
    let limiter: RateLimiter
    let attempts: LoginAttempts
    let work: PasswordWork
    /// Called with each attempt that was not even checked.
    let refused: @Sendable () -> Void

    /// The account whose password it is; nil when it is not, whatever the reason, after the same time.
    ///
    /// - Parameter household: where the attempt comes from.
    /// - Throws: `APIError`: 429 when there were too many attempts, 503 when too many are being checked.
    func account(email: String, password: String, from household: Household) async throws -> Account? {
        let attempt = try await begin(email, household)
        let known = Self.isEmail(email) ? try await users.logIn(email: email) : nil
        // What was typed as an address may be a password: it is written down only where it names somebody.
        AuditTrail.note { $0.owner = known?.account.id }
        let isRight: Bool
        do {
            isRight = try await work.check(password, against: known?.password)
        } catch {
            try await attempts.withdraw(attempt)
            throw error
        }
        guard isRight, let account = known?.account, !account.isDisabled else { return nil }
        try await attempts.succeeded(attempt)
        AuditTrail.note {
            $0.user = account.id
            $0.credential = "password"
        }
        return account
    }

    private func begin(_ email: String, _ household: Household) async throws -> LoginAttempt {
        do {
            try await limiter.charge(household, for: "log-in", Self.rate)
        } catch {
            refused()
            throw error
        }
        switch try await attempts.begin(email: email, from: household) {
        case .attempt(let begun): return begun
        case .refused(let seconds, let free):
            refused()
            let limit = RateDecision.refusal(limit: free, retryAfter: Double(seconds))
            throw APIError.tooManyRequests("Too many attempts to log in", limit)
        }
    }

    /// Whether a text may be somebody's address. What cannot be is never asked for: the database might read it otherwise than we
    /// count it, as a text with a NUL, and then one account had more counters than one.
    private static func isEmail(_ text: String) -> Bool {
        text.utf8.count <= maximumEmail && text.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7f }
    }
}

extension RateLimiter {
    /// A network has more of everything than one of its households, and less than all of them.
    private static let networkShare = 5

    /// Counts an attempt for a household and for the network that it is in.
    ///
    /// - Throws: `APIError`: 429 over the limit of one of them.
    func charge(_ household: Household, for purpose: String, _ rate: Plan.Rate) async throws {
        var limits = [(name: household.name, rate: rate)]
        if let network = household.network {
            let share = Plan.Rate(perMinute: rate.perMinute * Self.networkShare, burst: rate.burst * Self.networkShare)
            limits.append((name: network, rate: share))
        }
        for limit in limits {
            let decision = try await charge("\(purpose):\(limit.name)", limit.rate)
            guard decision.isAdmitted else {
                throw APIError.tooManyRequests("Too many log-ins from your address", decision)
            }
        }
    }
}

/// Checks passwords beside the requests, a few at a time: each check takes memory and time on purpose.
actor PasswordWork {
    private static let maximumWaiting = 30
    private let threads: NIOThreadPool
    private let parallel: Int
    /// What unknown users are checked against.
    private let nobodys: PasswordHash
    private var running = 0
    private var waiting: [CheckedContinuation<Void, Never>] = []

    /// - Parameter threads: what the checks run on, and nothing else: whatever waited for a thread of theirs would wait long.
    init(cost: PasswordHash.Cost, threads: NIOThreadPool) {
        nobodys = PasswordHash(fittingNothingAt: cost)
        self.threads = threads
        parallel = threads.numberOfThreads
    }

    /// Whether a password fits. Without a hash it takes as long as with one, and the answer is no.
    ///
    /// - Throws: `APIError` when too many wait already.
    func check(_ password: String, against hash: PasswordHash?) async throws -> Bool {
        try await enter()
        defer { leave() }
        let checked = hash ?? nobodys
        let fits = try await threads.runIfActive { try checked.matches(password) }
        return fits && hash != nil
    }

    private func enter() async throws {
        guard running >= parallel else {
            running += 1
            return
        }
        guard waiting.count < Self.maximumWaiting else {
            throw APIError(
                .serviceUnavailable,
                "Too many passwords are being checked; try again soon",
                headers: [.retryAfter: "5"]
            )
        }
        await withCheckedContinuation { waiting.append($0) }
    }

    /// The place goes to who has waited longest.
    private func leave() {
        guard waiting.isEmpty else { return waiting.removeFirst().resume() }
        running -= 1
    }
}
