// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletCore
import SwiftletStore
import SwiftletTestSupport
import Testing

@Suite struct APIKeyStoreTests {
    private let clock = TestClock()
    private let keys: APIKeyStore
    private let user: UserID

    init() async throws {
        let database = try Database.inMemory()
        keys = APIKeyStore(database, now: clock.read)
        user = try await UserStore(database).create(email: "a@example.org").id
    }

    @Test func ofManyAtOnceExactlyTheLimitIsMade() async throws {
        let made = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<50 {
                // A refusal is one less.
                group.addTask { (try? await keys.create(for: user, label: "", limit: 7)) != nil }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(made == 7)
        #expect(try await keys.list(of: user).count == 7)
        await #expect(throws: TooManyKeys(limit: 7)) { try await keys.create(for: user, label: "", limit: 7) }
    }

    @Test func expiredAndRevokedKeysDoNotCount() async throws {
        let soon = clock.now.addingTimeInterval(10)
        for _ in 0..<2 { _ = try await keys.create(for: user, label: "", expiresAt: soon, limit: 3) }
        let revoked = try await keys.create(for: user, label: "", limit: 3).key
        await #expect(throws: TooManyKeys.self) { try await keys.create(for: user, label: "", limit: 3) }
        _ = try await keys.revoke(revoked.id)
        _ = try await keys.create(for: user, label: "", limit: 3)
        clock.move(10)
        for _ in 0..<2 { _ = try await keys.create(for: user, label: "", limit: 3) }
        await #expect(throws: TooManyKeys.self) { try await keys.create(for: user, label: "", limit: 3) }
    }

    @Test func anExpiredKeyBecomesValidAgainOnlyWhereThereIsRoom() async throws {
        let old = try await keys.create(for: user, label: "", expiresAt: clock.now.addingTimeInterval(10)).key
        clock.move(10)
        let other = try await keys.create(for: user, label: "", limit: 1).key
        func change(_ key: APIKey, expiresAt: Date?) async throws -> APIKey? {
            try await keys.update(key.id, of: user, label: "new", expiresAt: expiresAt, limit: 1)
        }
        await #expect(throws: TooManyKeys(limit: 1)) { try await change(old, expiresAt: nil) }
        // What adds no valid key is not asked for room.
        #expect(try await change(old, expiresAt: old.expiresAt)?.label == "new")
        #expect(try await change(other, expiresAt: nil)?.label == "new")
        _ = try await keys.revoke(other.id)
        #expect(try await change(old, expiresAt: nil)?.expiresAt == nil)
    }

    @Test func keysThatHaveOpenedNothingForLongAreForgotten() async throws {
        let valid = try await keys.create(for: user, label: "").key
        let revoked = try await keys.create(for: user, label: "").key
        let expired = try await keys.create(for: user, label: "", expiresAt: clock.now).key
        let youngest = try await keys.create(for: user, label: "").key
        _ = try await keys.revoke(revoked.id)
        #expect(try await keys.list(of: user).map(\.id) == [valid.id, expired.id, youngest.id])
        let end = clock.now
        #expect(try await keys.purge(before: end) == false)
        #expect(try await keys.list().count == 4)
        #expect(try await keys.purge(before: end.addingTimeInterval(1)) == false)
        #expect(try await keys.list().map(\.id) == [valid.id, youngest.id])
    }
}
