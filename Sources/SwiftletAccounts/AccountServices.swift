// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import Logging
package import NIOPosix
package import SwiftletCore
import SwiftletMetrics
package import SwiftletStore

/// The services for users: their keys, tokens, plans and limits.
package struct AccountServices: Sendable {
    package struct Configuration: Sendable {
        package var plans: PlanCatalog
        /// Signs tokens: 32 random bytes. Its owner can make a token for any user.
        package var tokenSecret: [UInt8]
        /// How long keys and plans are cached.
        package var cacheLife: Duration
        /// The cost of a password's check.
        package var passwordCost: PasswordHash.Cost
        /// The server's address as browsers reach it; nil takes the `Host` header.
        package var publicURL: String?
        /// How many reverse proxies stand before the server; their `X-Forwarded-For` tells where a log-in comes from.
        package var proxies: Int
        /// Seconds for which keys are remembered that were revoked or have expired.
        package var keyRetentionSeconds: Int
        /// The threads that check passwords. A check takes long, so a server has threads that do nothing else.
        package var passwordThreads: NIOThreadPool
        /// The clocks by which rates, blocks, expiries and caches are measured. Tokens are checked by the machine's own clock.
        package var time: any TimeSource

        package init(
            plans: PlanCatalog = .standard,
            tokenSecret: [UInt8],
            cacheLife: Duration = .seconds(1),
            passwordCost: PasswordHash.Cost = .standard,
            publicURL: String? = nil,
            proxies: Int = 0,
            keyRetentionSeconds: Int = Defaults.retentionDays * 86_400,
            passwordThreads: NIOThreadPool = .singleton,
            time: any TimeSource = SystemTimeSource()
        ) {
            self.plans = plans
            self.tokenSecret = tokenSecret
            self.cacheLife = cacheLife
            self.passwordCost = passwordCost
            self.publicURL = publicURL
            self.proxies = proxies
            self.keyRetentionSeconds = keyRetentionSeconds
            self.passwordThreads = passwordThreads
            self.time = time
        }
    }

    /// How many valid keys a user may have.
    package static let maximumKeys = 1_000
    /// Where VMs and executions are admitted.
    package let admission: Admission
    package let keys: APIKeyStore
    package let lookup: AccountLookup
    package let limiter: RateLimiter
    package let uses: APIKeyUsageRecorder
    package let tokens: TokenIssuer
    package let passwords: PasswordAuthenticator
    package let cliAuthorizations: CLIAuthorizationStore
    package let publicURL: String?
    /// How many reverse proxies stand before the server.
    package let proxies: Int
    let keyRetentionSeconds: Int
    private let time: any TimeSource
    package let logger: Logger

    package init(_ database: Database, configuration: Configuration, logger: Logger) async {
        let time = configuration.time
        let now: @Sendable () -> Date = { time.date }
        self.time = time
        keys = APIKeyStore(database, now: now)
        lookup = AccountLookup(database, plans: configuration.plans, life: configuration.cacheLife, time: time)
        limiter = RateLimiter(database, now: now)
        uses = APIKeyUsageRecorder(keys)
        tokens = await TokenIssuer(secret: configuration.tokenSecret)
        let admission = Admission(accounts: lookup, limiter: limiter)
        self.admission = admission
        passwords = PasswordAuthenticator(
            users: UserStore(database),
            limiter: limiter,
            attempts: LoginAttemptStore(database, now: now),
            verifier: PasswordVerifier(cost: configuration.passwordCost, threads: configuration.passwordThreads),
            refused: { admission.refusals.add(["limit": "login"]) }
        )
        cliAuthorizations = CLIAuthorizationStore(database, now: now)
        publicURL = configuration.publicURL
        proxies = configuration.proxies
        keyRetentionSeconds = configuration.keyRetentionSeconds
        self.logger = logger
    }

    /// Counts a refusal, for monitoring.
    package func countRefusal(by limit: String) {
        admission.refusals.add(["limit": limit])
    }

    /// Deletes keys that were revoked or expired longer than the retention time ago.
    func purgeKeys() async throws {
        let oldest = time.date.addingTimeInterval(-Double(keyRetentionSeconds))
        while try await keys.purge(before: oldest), !Task.isCancelled {}
    }

    /// Creates a key for a user.
    ///
    /// - Throws: `TooManyKeys` when they have as many as they may have.
    package func createKey(
        for user: UserID,
        label: String,
        expiresAt: Date? = nil
    ) async throws -> (text: String, key: APIKey) {
        try await keys.create(for: user, label: label, expiresAt: expiresAt, limit: Self.maximumKeys)
    }
}
