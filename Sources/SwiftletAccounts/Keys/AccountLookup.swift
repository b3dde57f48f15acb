// SPDX-License-Identifier: Apache-2.0

import Foundation
package import SwiftletCore
package import SwiftletStore
import Synchronization

/// Looks up the owners of keys, accounts and plans: reads each from the database at most once a second.
///
/// So a warm request costs no query, and a revoked key, a disabled user and another plan count within a second, whichever process
/// wrote them.
package final class AccountLookup: Sendable {
    /// The plans that the server knows.
    package let plans: PlanCatalog
    private let store: AccountStore
    private let time: any TimeSource
    private let cache: Mutex<AccountCache>

    /// - Parameters:
    ///   - life: how long an entry of the cache is used.
    ///   - time: the clocks by which entries age and keys expire.
    package init(
        _ database: Database,
        plans: PlanCatalog = .standard,
        life: Duration = .seconds(1),
        time: any TimeSource = SystemTimeSource()
    ) {
        store = AccountStore(database)
        self.plans = plans
        self.time = time
        cache = Mutex(AccountCache(life: life))
    }

    /// The owner of a key; nil when it is unknown, revoked or expired.
    package func owner(ofKey text: String) async throws -> APIKeyOwner? {
        let hash = TextDigest.of(text)
        let known = cache.withLock { $0.owner(ofKey: hash, at: time.now) }
        let moment = time.date.microseconds
        guard let owner = if let known { known } else { try await read(hash) } else { return nil }
        guard owner.expiresAt.map({ moment < $0 }) ?? true else { return nil }
        return owner
    }

    /// The account of a user; nil when there is none.
    package func account(_ id: UserID) async throws -> Account? {
        let (known, reading) = cache.withLock { ($0.account(id, at: time.now), $0.reading(at: time.now)) }
        if let known { return known }
        let account = try await store.account(id)
        if let account { cache.withLock { $0.insert(account, from: reading) } }
        return account
    }

    /// Makes the next lookups of a user's keys and account read the database: for a caller that has just changed one of them.
    package func invalidate(_ user: UserID) {
        cache.withLock { $0.invalidate(user) }
    }

    /// A user's plan.
    ///
    /// - Throws: `StoreError` when the user is none, or has a plan that the server does not know.
    package func plan(of id: UserID) async throws -> Plan {
        guard let account = try await account(id) else { throw StoreError("There is no user \(id)") }
        return try plans.plan(named: account.planName)
    }

    private func read(_ hash: String) async throws -> APIKeyOwner? {
        let reading = cache.withLock { $0.reading(at: time.now) }
        let owner = try await store.owner(ofKeyDigest: hash)
        cache.withLock { $0.insert(owner, ofKey: hash, from: reading) }
        return owner
    }
}
