// SPDX-License-Identifier: Apache-2.0

package import SwiftletCore
package import SwiftletMetrics
package import SwiftletStore

/// What the HTTP routes ask of executions; `ExecutionService` is the real one.
package protocol ExecutionAPI: Sendable {
    /// Runs code in the session's VM, which is spawned if none lives. Returns before the request's timeout has passed.
    ///
    /// - Returns: the result, and whether an earlier request with the same idempotency key had it first.
    /// - Throws: `SessionError`; nothing ran then.
    func execute(_ request: ExecutionRequest) async throws -> (result: ExecutionResult, isReplay: Bool)

    /// Has code run and returns at once, with what can be followed.
    func start(_ request: ExecutionRequest) async throws -> (handle: ExecutionHandle, isReplay: Bool)

    /// An execution and its outputs, while it runs or afterwards.
    /// - Throws: `SessionError.executionNotFound` for an unknown one and for another user's.
    func handle(of id: ExecutionID, owner: UserID) async throws -> ExecutionHandle

    /// The record of an execution, without its outputs.
    func record(of id: ExecutionID, owner: UserID) async throws -> ExecutionRecord

    /// Executions, the newest first.
    func list(_ filter: ExecutionStore.Filter) async throws -> [ExecutionRecord]

    /// Ends an execution and waits a moment for its end; one that is over stays as it is.
    func cancel(_ id: ExecutionID, owner: UserID) async throws -> ExecutionRecord

    /// Numbers for a monitoring system.
    func metrics() async -> [MetricFamily]
}
