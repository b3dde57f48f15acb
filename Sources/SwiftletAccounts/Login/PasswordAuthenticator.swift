// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore
import SwiftletStore

/// Authenticates users by e-mail address and password.
package struct PasswordAuthenticator: Sendable {
    /// The result of an attempt.
    package struct Outcome: Sendable {
        /// The account whose password was right; nil when it was not, whatever the reason.
        package let account: Account?
        /// The account whose address was given; nil when there is none. For the audit log: what was typed as an address may be
        /// a password, and is recorded only where it names an account.
        package let owner: UserID?
    }

    /// Attempts from one client address, good or bad. Attempts over this rate are not counted as failures.
    private static let rate = Plan.Rate(perMinute: 60, burst: 60)

    let users: UserStore
    let limiter: RateLimiter
    let attempts: LoginAttemptStore
    let verifier: PasswordVerifier
    /// Called with each attempt that was refused before its password was checked.
    let refused: @Sendable () -> Void

    /// Checks a password. A wrong one, an unknown address and a disabled account take the same time.
    ///
    /// - Parameter clientAddress: where the attempt comes from.
    /// - Throws: `LoginError` when too many attempts were made, or too many are being checked.
    package func authenticate(
        email: String,
        password: String,
        from clientAddress: ClientAddress
    ) async throws -> Outcome {
        let attempt = try await begin(email, clientAddress)
        let known = Self.isEmail(email) ? try await users.login(email: email) : nil
        let owner = known?.account.id
        let isRight: Bool
        do {
            let hash = known?.passwordHash.flatMap(PasswordHash.init(text:))
            isRight = try await verifier.verify(password, against: hash)
        } catch is PasswordVerifier.Busy {
            try await attempts.withdraw(attempt)
            throw LoginError.verifierBusy(owner: owner)
        } catch {
            try await attempts.withdraw(attempt)
            throw error
        }
        guard isRight, let account = known?.account, !account.isDisabled else {
            return Outcome(account: nil, owner: owner)
        }
        try await attempts.succeeded(attempt)
        return Outcome(account: account, owner: owner)
    }

    private func begin(_ email: String, _ clientAddress: ClientAddress) async throws -> LoginAttempt {
        do {
            try await limiter.charge(clientAddress, for: "log-in", Self.rate)
        } catch {
            refused()
            throw error
        }
        switch try await attempts.begin(email: email, from: clientAddress) {
        case .attempt(let begun): return begun
        case .refused(let seconds, let free):
            refused()
            let limit = RateDecision.refusal(limit: free, retryAfter: Double(seconds))
            throw LoginError.tooManyAttempts(reason: "Too many attempts to log in", limit: limit)
        }
    }

    /// Whether a text can be an e-mail address. Other texts are never looked up: the database might treat a text with a NUL as equal
    /// to one without, for which the failures are counted separately.
    private static func isEmail(_ text: String) -> Bool {
        text.utf8.count <= Limits.emailBytes && text.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7f }
    }
}
