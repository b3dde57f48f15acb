// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import NIOPosix
import SwiftletStore

/// Checks who logs in with a password.
struct LogIn: Sendable {
    /// Attempts from one address, good or bad: what is over this never reaches the count of failures.
    private static let rate = Plan.Rate(perMinute: 60, burst: 60)

    let users: UserStore
    let limiter: RateLimiter
    let attempts: LoginAttempts
    let work: PasswordWork
    /// Called with each attempt that was not even checked.
    let refused: @Sendable () -> Void

    /// The account whose password it is; nil when it is not, whatever the reason, after the same time.
    ///
    /// - Parameter address: where the attempt comes from.
    /// - Throws: `APIError`: 429 when there were too many attempts, 503 when too many are being checked.
    func account(email: String, password: String, address: String) async throws -> Account? {
        let decision = try await limiter.charge("log-in:\(address)", Self.rate)
        guard decision.isAdmitted else {
            refused()
            throw APIError.tooManyRequests("Too many log-ins from your address", retryAfter: decision.retryAfter)
        }
        if let wait = try await attempts.begin(email: email, address: address) {
            refused()
            throw APIError.tooManyRequests("Too many attempts to log in", retryAfter: Double(wait))
        }
        let known = try await users.logIn(email: email)
        // What was typed as an address may be a password: it is written down only where it names somebody.
        AuditTrail.note { $0.owner = known?.account.id }
        let isRight: Bool
        do {
            isRight = try await work.check(password, against: known?.password)
        } catch {
            try await attempts.withdraw(email: email, address: address)
            throw error
        }
        guard isRight, let account = known?.account, !account.isDisabled else { return nil }
        try await attempts.succeeded(email: email, address: address)
        AuditTrail.note {
            $0.user = account.id
            $0.credential = "password"
        }
        return account
    }
}

/// Checks passwords beside the requests, a few at a time: each check takes memory and time on purpose.
actor PasswordWork {
    private static let parallel = 2
    private static let maximumWaiting = 30
    /// What unknown users are checked against.
    private let nobodys: PasswordHash
    private var running = 0
    private var waiting: [CheckedContinuation<Void, Never>] = []

    init(cost: PasswordHash.Cost) {
        nobodys = PasswordHash(fittingNothingAt: cost)
    }

    /// Whether a password fits. Without a hash it takes as long as with one, and the answer is no.
    ///
    /// - Throws: `APIError` when too many wait already.
    func check(_ password: String, against hash: PasswordHash?) async throws -> Bool {
        try await enter()
        defer { leave() }
        let checked = hash ?? nobodys
        let fits = try await NIOThreadPool.singleton.runIfActive { try checked.matches(password) }
        return fits && hash != nil
    }

    private func enter() async throws {
        guard running >= Self.parallel else {
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
