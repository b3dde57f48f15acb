// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore
package import SwiftletMetrics

/// What the HTTP routes ask of sessions; `SessionService` is the real one.
package protocol SessionAPI: Sendable {
    /// Creates a session; with an environment, its VM is spawned before the answer.
    func createSession(owner: UserID, options: SessionOptions) async throws -> SessionRecord

    /// - Throws: `SessionError.notFound` for an unknown session and for another user's.
    func status(of id: SessionID, owner: UserID) async throws -> SessionStatus

    /// Kills the session's VM, if it runs, and returns its id.
    /// - Throws: `SessionError.notFound`, `SessionError.noVM`.
    func kill(_ id: SessionID, owner: UserID) async throws -> String

    /// The owner's sessions whose VM lives, the youngest VM first.
    func sandboxes(owner: UserID) async throws -> [Sandbox]

    /// Changes a session; a longer lifetime counts for its living VM too.
    /// - Throws: `SessionError.notFound`, `SessionError.lifetime` for one that is shorter than before, or too long.
    func update(_ id: SessionID, owner: UserID, _ change: SessionChange) async throws -> SessionStatus

    /// Kills the session's VM, if it has one, and forgets the session. Returns when nothing of both is left.
    /// - Throws: `SessionError.notFound`.
    func delete(_ id: SessionID, owner: UserID) async throws

    /// Numbers for a monitoring system.
    func metrics() async -> [MetricFamily]
}
