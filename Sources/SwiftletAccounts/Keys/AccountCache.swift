// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore

/// Keys and accounts that were read from the database, each for a limited time.
package struct AccountCache: Sendable {
    /// Marks the beginning of a read of the database: its result is cached only if no change came after.
    package struct Reading: Sendable {
        fileprivate let change: Int
        fileprivate let began: ContinuousClock.Instant
    }

    private struct Entry<Value: Sendable>: Sendable {
        let value: Value
        let readAt: ContinuousClock.Instant
    }

    private static let maximumEntries = 10_000
    private let life: Duration
    private var keys: [String: Entry<APIKeyOwner>] = [:]
    private var accounts: [UserID: Entry<Account>] = [:]
    /// The number of changes, and for the latest of each user which it was.
    private var lastChange = 0
    private var changes: [UserID: Int] = [:]
    /// All reads that began before this change are stale, whichever user they are of.
    private var oldestTracked = 0

    package init(life: Duration) {
        self.life = life
    }

    /// The owner of a key with this hash, if the cache has a fresh entry.
    package func owner(ofKey hash: String, at moment: ContinuousClock.Instant) -> APIKeyOwner? {
        fresh(keys[hash], at: moment)
    }

    package func account(_ id: UserID, at moment: ContinuousClock.Instant) -> Account? {
        fresh(accounts[id], at: moment)
    }

    /// Starts a reading: take it before the query, and pass it to `insert` with the result.
    package func reading(at moment: ContinuousClock.Instant) -> Reading {
        Reading(change: lastChange, began: moment)
    }

    /// Caches an account, unless it was invalidated since the reading began: the result may be older than the change.
    package mutating func insert(_ account: Account, from reading: Reading) {
        guard isCurrent(reading, of: account.id) else { return }
        if accounts.count >= Self.maximumEntries { accounts.removeAll() }
        accounts[account.id] = Entry(value: account, readAt: reading.began)
    }

    /// As ``insert(_:from:)``, for a key; nil when the key has no owner.
    package mutating func insert(_ owner: APIKeyOwner?, ofKey hash: String, from reading: Reading) {
        guard let owner else {
            keys[hash] = nil
            return
        }
        guard isCurrent(reading, of: owner.account.id) else { return }
        if keys.count >= Self.maximumEntries { keys.removeAll() }
        keys[hash] = Entry(value: owner, readAt: reading.began)
        insert(owner.account, from: reading)
    }

    /// Removes the entries of a user whose keys or account have changed; results of reads that have begun are not cached.
    package mutating func invalidate(_ user: UserID) {
        keys = keys.filter { $0.value.value.account.id != user }
        accounts[user] = nil
        lastChange += 1
        if changes.count >= Self.maximumEntries {
            changes = [:]
            oldestTracked = lastChange
        }
        changes[user] = lastChange
    }

    private func isCurrent(_ reading: Reading, of user: UserID) -> Bool {
        reading.change >= max(oldestTracked, changes[user] ?? 0)
    }

    private func fresh<Value>(_ entry: Entry<Value>?, at moment: ContinuousClock.Instant) -> Value? {
        guard let entry, moment - entry.readAt < life else { return nil }
        return entry.value
    }
}
