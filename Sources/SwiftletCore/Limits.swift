// SPDX-License-Identifier: Apache-2.0

/// The fixed bounds of the server, each stated once. What an operator may change is a setting, see docs/configuration.md.
package enum Limits {
    /// The numbers of virtual processors that a microVM can have.
    package static let vcpuCounts = [1, 2, 4, 6, 8]
    /// What a plan may name as its largest number of virtual processors.
    package static let planVCPUCount = 1...8
    /// MiB of a microVM.
    package static let memoryMB = 128...8_192
    /// Seconds that a microVM lives.
    package static let vmLifetimeSeconds = 20...86_400
    /// Calls of one session that may wait for the turn of one interpreter.
    package static let queuedCallsPerInterpreter = 64
    /// How long an execution may wait or run when its request has no timeout: the longest life of a VM.
    package static let longestExecution = Duration.seconds(vmLifetimeSeconds.upperBound)
}
