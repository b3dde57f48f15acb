// SPDX-License-Identifier: Apache-2.0

/// A name under which something can be configured: `port` is `--port`, `SWIFTLET_PORT` and `"port"` in the file.
enum Setting: String, CaseIterable {
    case dataDirectory
    case imagesDirectory
    case templatesDirectory
    case resources
    case agent
    case qemu
    case bubblewrap
    case host
    case port
    case logLevel
    case imageVariant
    case accelerator
    case vmLifetimeSeconds
    case memoryMb
    case vcpuCount
    case maximumVms
    case maximumStartingVms
    case memoryBudgetMb
    case memoryOvercommit
    case diskMb
    case diskBudgetMb
    case diskMbPerSecond
    case diskRequestsPerSecond
    case poolSize
    case poolMaximum
    case templates
    case templatesMaximumMb
    case insecureNoJail
    case bootTimeoutSeconds
    case outputLimitBytes
    case outputRetentionSeconds
    case outputTotalMb
    case executionRetentionDays
    case bodyLimitBytes
    case shutdownSeconds
    case plansFile
    case defaultPlan
    case publicUrl
    case proxies
    case retentionDays
    case auditRetentionDays
    case auditMaximumEvents
    case logFormat

    /// The environment's name for it.
    var environmentName: String { "SWIFTLET_" + words("_").uppercased() }

    /// The command line's name for it.
    var flagName: String { words("-") }

    private func words(_ separator: String) -> String {
        rawValue.reduce(into: "") { text, character in
            if character.isUppercase { text += separator }
            text += character.lowercased()
        }
    }
}
