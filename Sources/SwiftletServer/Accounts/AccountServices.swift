// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
package import Logging
import ServiceLifecycle
package import SwiftletSessions
package import SwiftletStore

/// All that knows about users: their keys, tokens, plans and limits.
package struct AccountServices: Sendable {
    package struct Configuration: Sendable {
        package var plans: PlanCatalog
        /// Signs tokens; whoever knows it can be anybody. 32 random bytes.
        package var tokenSecret: [UInt8]
        /// How long a key and a plan are taken as they were read.
        package var cacheLife: Duration
        /// What a password's check costs.
        package var passwordCost: PasswordHash.Cost
        /// The server's address as browsers reach it; nil takes what clients call it.
        package var publicURL: String?

        package init(
            plans: PlanCatalog = .standard,
            tokenSecret: [UInt8],
            cacheLife: Duration = .seconds(1),
            passwordCost: PasswordHash.Cost = .standard,
            publicURL: String? = nil
        ) {
            self.plans = plans
            self.tokenSecret = tokenSecret
            self.cacheLife = cacheLife
            self.passwordCost = passwordCost
            self.publicURL = publicURL
        }
    }

    private static let maximumKeys = 1_000
    /// Where VMs are admitted, for the session service.
    package let admission: SessionAdmission
    let keys: KeyStore
    let directory: AccountDirectory
    let limiter: RateLimiter
    let uses: KeyUse
    let tokens: TokenIssuer
    let logIn: LogIn
    let pairings: PairingStore
    let publicURL: String?
    let logger: Logger

    package init(_ database: Database, configuration: Configuration, logger: Logger) async {
        keys = KeyStore(database)
        directory = AccountDirectory(database, plans: configuration.plans, life: configuration.cacheLife)
        limiter = RateLimiter(database)
        uses = KeyUse(keys)
        tokens = await TokenIssuer(secret: configuration.tokenSecret)
        logIn = LogIn(
            users: UserStore(database),
            attempts: LoginAttempts(database),
            work: PasswordWork(cost: configuration.passwordCost)
        )
        pairings = PairingStore(database)
        publicURL = configuration.publicURL
        admission = SessionAdmission(accounts: directory, limiter: limiter)
        self.logger = logger
    }

    /// Makes a key for a user.
    ///
    /// - Throws: `APIError` when they have too many.
    func createKey(
        for user: UserID,
        label: String,
        expiresAt: Date? = nil
    ) async throws -> (text: String, key: APIKey) {
        let valid = try await keys.list(of: user).count { $0.revokedAt == nil }
        guard valid < Self.maximumKeys else {
            throw APIError(.conflict, "You have \(valid) keys, and may have \(Self.maximumKeys); delete some")
        }
        return try await keys.create(for: user, label: label, expiresAt: expiresAt)
    }
}

/// Writes down late what no request shall wait for, and forgets what is over.
package struct AccountHousekeeper: Service {
    private static let purgeInterval = 60
    private let accounts: AccountServices

    package init(_ accounts: AccountServices) {
        self.accounts = accounts
    }

    package func run() async throws {
        await cancelWhenGracefulShutdown {
            var seconds = 0
            // A cancelled sleep is the end.
            while (try? await Task.sleep(for: .seconds(1))) != nil {
                seconds += 1
                await work(purging: seconds % Self.purgeInterval == 0)
            }
        }
        await work(purging: false)
    }

    private func work(purging: Bool) async {
        do {
            try await accounts.uses.flush()
            guard purging else { return }
            try await accounts.limiter.purge()
            try await accounts.logIn.attempts.purge()
            try await accounts.pairings.purge()
        } catch {
            accounts.logger.warning("Housekeeping of accounts failed", metadata: ["error": "\(error)"])
        }
    }
}
