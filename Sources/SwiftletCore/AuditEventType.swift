// SPDX-License-Identifier: Apache-2.0

/// What can be audited. The part before the point is the event's group.
package enum AuditEventType: String, Sendable, CaseIterable {
    /// A password was tried, for a token or for a command line.
    case loggedIn = "auth.login"
    /// A command line asked for a log-in.
    case pairingStarted = "auth.cli_started"
    /// A command line got its key.
    case pairingExchanged = "auth.cli_exchanged"
    /// A key or token opened nothing.
    case credentialRefused = "auth.refused"
    case rateLimitRefused = "rate_limit.refused"
    case keyCreated = "api_key.created"
    case keyUpdated = "api_key.updated"
    case keyRevoked = "api_key.revoked"
    case sessionCreated = "session.created"
    case sessionUpdated = "session.updated"
    case sessionDeleted = "session.deleted"
    /// The session's owner had its VM killed.
    case sessionKilled = "session.killed"
    case vmStarted = "vm.started"
    case vmTerminated = "vm.terminated"
    case executionCreated = "execution.created"
    case executionCancelled = "execution.cancelled"
    case fileUploaded = "file.uploaded"
    case fileDownloaded = "file.downloaded"
    case fileRemoved = "file.removed"
    case userCreated = "user.created"
    case userPlanChanged = "user.plan_changed"
    case userDisabled = "user.disabled"
    case userEnabled = "user.enabled"
    case userPasswordChanged = "user.password_changed"
    case serverStarted = "server.started"
    case serverStopped = "server.stopped"

    /// Groups of events that come as often as users like. Beyond a number they go before their time; all others stay.
    package static let frequentGroups = ["execution", "file", "rate_limit", "session", "vm"]

    package var group: String { String(rawValue.prefix { $0 != "." }) }

    /// What kind of thing the event's resource is; nil when it has none.
    package var resourceType: String? {
        ["auth", "rate_limit", "server"].contains(group) ? nil : group
    }

    /// Whoever gets a key or loses one is answered when that is written down.
    package var isWrittenAtOnce: Bool {
        switch self {
        case .loggedIn, .pairingExchanged, .keyCreated, .keyUpdated, .keyRevoked: true
        default: ["user", "server"].contains(group)
        }
    }

    /// All types by their groups, both sorted.
    package static var catalog: [(group: String, types: [String])] {
        Dictionary(grouping: allCases, by: \.group).sorted { $0.key < $1.key }
            .map { ($0.key, $0.value.map(\.rawValue).sorted()) }
    }
}

/// How what is audited went.
package enum AuditStatus: String, Sendable, CaseIterable {
    case success
    /// It could not be done as it was asked for.
    case failure
    /// The server could not do it.
    case error
    /// It was not allowed.
    case denied
}
