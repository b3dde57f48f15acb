// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore

/// What was read of keys and accounts, for as long as it is taken as true.
package struct AccountCache: Sendable {
    /// A question to the database, from before it was asked.
    package struct Reading: Sendable {
        fileprivate let generation: Int
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
    /// How often all was forgotten.
    private var generation = 0

    package init(life: Duration) {
        self.life = life
    }

    /// The owner of a key, if it was read lately; keys are named by their hash.
    package func owner(ofKey hash: String, at moment: ContinuousClock.Instant) -> APIKeyOwner? {
        fresh(keys[hash], at: moment)
    }

    package func account(_ id: UserID, at moment: ContinuousClock.Instant) -> Account? {
        fresh(accounts[id], at: moment)
    }

    /// To be had before the database is asked, for what is kept of its answer.
    package func reading(at moment: ContinuousClock.Instant) -> Reading {
        Reading(generation: generation, began: moment)
    }

    /// Keeps what was read, unless something was changed since the question: the answer may be from before.
    package mutating func keep(_ account: Account, from reading: Reading) {
        guard reading.generation == generation else { return }
        if accounts.count >= Self.maximumEntries { accounts.removeAll() }
        accounts[account.id] = Entry(value: account, readAt: reading.began)
    }

    /// As ``keep(_:from:)``, for a key; nil when the key has no owner.
    package mutating func keep(_ owner: APIKeyOwner?, ofKey hash: String, from reading: Reading) {
        guard let owner else {
            keys[hash] = nil
            return
        }
        guard reading.generation == generation else { return }
        if keys.count >= Self.maximumEntries { keys.removeAll() }
        keys[hash] = Entry(value: owner, readAt: reading.began)
        keep(owner.account, from: reading)
    }

    /// Something was changed: what was read before, and what is being read now, is not true any more.
    package mutating func forget() {
        keys = [:]
        accounts = [:]
        generation += 1
    }

    private func fresh<Value>(_ entry: Entry<Value>?, at moment: ContinuousClock.Instant) -> Value? {
        guard let entry, moment - entry.readAt < life else { return nil }
        return entry.value
    }
}
