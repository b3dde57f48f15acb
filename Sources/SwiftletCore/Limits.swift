// SPDX-License-Identifier: Apache-2.0

/// The fixed bounds of the server, each stated once. What an operator may change is a setting, see docs/configuration.md; ``Defaults``
/// has what a setting is when nobody sets it.
package enum Limits {
    // MARK: microVMs

    /// The numbers of virtual processors that a microVM, a plan or the default shape can have.
    package static let vcpuCounts = [1, 2, 4, 6, 8]
    /// MiB of a microVM.
    package static let memoryMB = 128...8_192
    /// MiB that a microVM may write to its disk.
    package static let diskMB = 64...1_048_576
    /// Seconds that a microVM lives.
    package static let vmLifetimeSeconds = 20...86_400
    /// Bytes of a microVM's id, as a filter has it.
    package static let vmIDBytes = 64

    // MARK: Executions

    /// Seconds of an execution's timeout.
    package static let timeoutSeconds = 1...600
    /// Bytes of an execution's source.
    package static let sourceBytes = 16 << 20
    /// Bytes kept of each of stdout and stderr.
    package static let outputBytes = 1_024...(16 << 30)
    /// Bytes of an idempotency key.
    package static let idempotencyKeyBytes = 1...255
    /// Calls of one session that may wait for the turn of one interpreter.
    package static let queuedCallsPerInterpreter = 64
    /// How long an execution may wait or run when its request has no timeout: the longest life of a VM.
    package static let longestExecution = Duration.seconds(vmLifetimeSeconds.upperBound)

    // MARK: Listings

    /// Items of a page of sessions or executions.
    package static let pageItems = 1...1_000
    /// Events of a page of the audit log.
    package static let auditPageItems = 1...200
    /// Entries of a page of a directory.
    package static let directoryPageItems = 1...10_000
    /// Days of a usage report.
    package static let usageDays = 1...365

    // MARK: Files

    /// Bytes of a path in a guest.
    package static let pathBytes = 1...4_095
    /// Bytes of one name in a directory.
    package static let nameBytes = 1...255

    // MARK: Accounts

    /// Bytes of an e-mail address; RFC 5321 allows 254.
    package static let emailBytes = 254
    /// Bytes of what a key's owner says it is for.
    package static let keyDescriptionBytes = 200
    /// Seconds until a key expires; a hundred years at most.
    package static let keyLifetimeSeconds = 1...3_153_600_000
    /// Bytes of the `state` of a command line's log-in.
    package static let loginStateBytes = 1...512
    /// Bytes of the body of a form that logs a user in.
    package static let loginFormBytes = 16 << 10
}

/// What a setting or a field is when nobody sets it.
package enum Defaults {
    package static let port = 8_000
    package static let vcpuCount = 2
    package static let memoryMB = 512
    package static let diskMB = 4_096
    package static let templatesMB = 16_384
    package static let vmLifetimeSeconds = 300
    package static let timeoutSeconds = 60
    package static let outputBytes = 256 << 20
    package static let bodyBytes = 32 << 20
    package static let pageItems = 100
    package static let auditPageItems = 50
    package static let directoryPageItems = 1_000
    package static let usageDays = 30
    /// Days for which ended VMs, dead keys and audit events are kept.
    package static let retentionDays = 90
    package static let auditEvents = 1_000_000
}
