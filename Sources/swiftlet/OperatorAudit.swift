// SPDX-License-Identifier: Apache-2.0

import SwiftletCore
import SwiftletStore

extension AuditStore {
    /// Writes down what somebody did to a user at this command line.
    func recordOperator(
        _ type: AuditEventType,
        on user: UserID,
        resource: String? = nil,
        details: [String: AuditEvent.Detail] = [:]
    ) async throws {
        var event = AuditEvent(type, by: .operator, owner: user)
        event.resourceID = resource
        event.details = details
        try await append([event])
    }
}
