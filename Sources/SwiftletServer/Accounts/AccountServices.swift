// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Hummingbird
package import Logging
package import NIOPosix
import SwiftletMetrics
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
        /// How many reverse proxies stand before the server; their `X-Forwarded-For` tells where a log-in comes from.
        package var proxies: Int
        /// Seconds for which keys are remembered that were revoked or have expired.
        package var keyRetentionSeconds: Int
        /// What passwords are checked on. Their checks take long, so a server has threads for nothing else.
        package var passwordThreads: NIOThreadPool

        package init(
            plans: PlanCatalog = .standard,
            tokenSecret: [UInt8],
            cacheLife: Duration = .seconds(1),
            passwordCost: PasswordHash.Cost = .standard,
            publicURL: String? = nil,
            proxies: Int = 0,
            keyRetentionSeconds: Int = 90 * 86_400,
            passwordThreads: NIOThreadPool = .singleton
        ) {
            self.plans = plans
            self.tokenSecret = tokenSecret
            self.cacheLife = cacheLife
            self.passwordCost = passwordCost
            self.publicURL = publicURL
            self.proxies = proxies
            self.keyRetentionSeconds = keyRetentionSeconds
            self.passwordThreads = passwordThreads
        }
    }

    /// How many valid keys a user may have.
    static let maximumKeys = 1_000
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
    private let households: Households
    let keyRetentionSeconds: Int
    let logger: Logger

    package init(_ database: Database, configuration: Configuration, logger: Logger) async {
        keys = KeyStore(database)
        directory = AccountDirectory(database, plans: configuration.plans, life: configuration.cacheLife)
        limiter = RateLimiter(database)
        uses = KeyUse(keys)
        tokens = await TokenIssuer(secret: configuration.tokenSecret)
        let admission = SessionAdmission(accounts: directory, limiter: limiter)
        self.admission = admission
        logIn = LogIn(
            users: UserStore(database),
            limiter: limiter,
            attempts: LoginAttempts(database),
            work: PasswordWork(cost: configuration.passwordCost, threads: configuration.passwordThreads),
            refused: { admission.refusals.add(["limit": "login"]) }
        )
        pairings = PairingStore(database)
        publicURL = configuration.publicURL
        households = Households(proxies: configuration.proxies, logger: logger)
        keyRetentionSeconds = configuration.keyRetentionSeconds
        self.logger = logger
    }

    /// Where a request comes from, as far as limits on log-ins and the audit log are concerned.
    func household(_ request: Request, _ context: AppContext) -> Household {
        households.household(request, context.peer)
    }

    /// Counts what was refused, for monitoring.
    func countRefusal(by limit: String) {
        admission.refusals.add(["limit": limit])
    }

    /// Runs what decides whether a request is let in. What cannot be decided is refused.
    ///
    /// - Throws: `APIError`: that of the body, or 503 for whatever else it threw.
    func failingClosed<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
        do {
            return try await body()
        } catch let error as APIError {
            throw error
        } catch let error as CancellationError {
            throw error
        } catch {
            Logger.current.error("A request could not be admitted", metadata: ["error": "\(error)"])
            throw APIError.admissionUnavailable
        }
    }

    /// Forgets the keys that have opened nothing for their time.
    func purgeKeys() async throws {
        let oldest = Date().addingTimeInterval(-Double(keyRetentionSeconds))
        while try await keys.purge(before: oldest), !Task.isCancelled {}
    }

    /// Makes a key for a user.
    ///
    /// - Throws: `APIError` when they have too many.
    func createKey(
        for user: UserID,
        label: String,
        expiresAt: Date? = nil
    ) async throws -> (text: String, key: APIKey) {
        do {
            let made = try await keys.create(for: user, label: label, expiresAt: expiresAt, limit: Self.maximumKeys)
            AuditTrail.note { $0.resource = String(made.key.id) }
            return made
        } catch let error as TooManyKeys {
            throw APIError(error)
        }
    }
}

extension APIError {
    init(_ error: TooManyKeys) {
        self.init(.conflict, "You may have \(error.limit) valid keys, and have so many; delete some")
    }
}
