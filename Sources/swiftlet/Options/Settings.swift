// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Configuration
import Foundation
import Logging
import SwiftletClient
import SwiftletCore
import SwiftletSessions
import SwiftletVM
import SystemPackage

/// Everything that can be configured, read and checked.
struct Settings: Sendable {
    enum AcceleratorChoice: String, CaseIterable {
        case auto
        case tcg
        case kvm
    }

    enum LogFormat: String, CaseIterable {
        case text
        case json
    }

    var data: DataDirectory
    var resources: String
    var agent: String
    var qemu: String
    var bubblewrap: String
    var host: String
    var port: Int
    var logLevel: Logger.Level
    var imageVariant: ImageVariant
    var accelerator: AcceleratorChoice
    var vmLifetimeSeconds: Int
    var memoryMB: Int
    var vcpuCount: Int
    var capacity: HostCapacity.Limits
    /// MiB that a VM may write to its disk.
    /// Nil for the usual, or what the image has room for.
    var diskMB: Int?
    var diskBudgetMB: Int?
    /// Nil for no limit.
    var diskRate: DiskRate?
    var pool: PoolPolicy.Limits
    /// Off, every VM boots.
    var usesTemplates: Bool
    var templatesMaximumMB: Int
    var insecureNoJail: Bool
    var bootTimeoutSeconds: Int
    var outputLimitBytes: Int
    var retention: RetentionLimits
    var bodyLimitBytes: Int
    var shutdownSeconds: Int
    /// A JSON file with plans, beside those that are built in.
    var plansFile: String?
    /// The plan of a new user; nil for the built-in default.
    var defaultPlan: String?
    /// The server's address as browsers reach it, without a slash at its end.
    var publicURL: String?
    /// Reverse proxies before the server whose `X-Forwarded-For` is believed.
    var proxies: Int
    /// Days for which ended VMs, unused sessions and keys that open nothing any more are remembered.
    var retentionDays: Int
    var auditRetentionDays: Int
    /// Of the newest events so many are kept; older ones only if they are of the rare kinds.
    var auditMaximumEvents: Int
    var logFormat: LogFormat

    /// Reads flags, then the environment, then the file; what none of them has gets its default.
    ///
    /// - Throws: `ValidationError` naming the setting, its value and what it may be.
    static func read(flags: [Setting: String], file: String?) async throws -> Settings {
        let given = flags.reduce(into: [AbsoluteConfigKey: ConfigValue]()) { values, flag in
            values[AbsoluteConfigKey([flag.key.rawValue])] = ConfigValue(.string(flag.value), isSecret: false)
        }
        var providers: [any ConfigProvider] = [
            InMemoryProvider(values: given),
            EnvironmentVariablesProvider().prefixKeys(with: "swiftlet"),
        ]
        if let file {
            do {
                providers.append(try await FileProvider<JSONSnapshot>(filePath: FilePath(file)))
            } catch {
                throw ValidationError("The configuration file \(file) cannot be read: \(error)")
            }
        }
        return try Settings(SettingReader(config: ConfigReader(providers: providers)))
    }

    private init(_ reader: SettingReader) throws {
        let executable = URL(filePath: CommandLine.arguments.first ?? "").resolvingSymlinksInPath()
        let home = FirstKey.standardDataDirectory
        let path = reader.string(.dataDirectory) ?? home
        data = DataDirectory(path: path, images: reader.string(.imagesDirectory) ?? "\(path)/images")
        data.templates = reader.string(.templatesDirectory) ?? data.templates
        resources = reader.string(.resources) ?? Self.findResources(from: Self.executable ?? executable.path)
        let beside = URL(filePath: Self.executable ?? executable.path).deletingLastPathComponent().path
        agent = reader.string(.agent) ?? "\(beside)/swiftlet-agent"
        qemu = reader.string(.qemu) ?? "/usr/bin/qemu-system-x86_64"
        bubblewrap = reader.string(.bubblewrap) ?? "/usr/bin/bwrap"
        host = reader.string(.host) ?? "127.0.0.1"
        port = try reader.integer(.port, in: 0...65_535) ?? Defaults.port
        logLevel = try reader.choice(.logLevel) ?? .info
        imageVariant = try reader.choice(.imageVariant) ?? .standard
        accelerator = try reader.choice(.accelerator) ?? .auto
        vmLifetimeSeconds =
            try reader.integer(.vmLifetimeSeconds, in: Limits.vmLifetimeSeconds) ?? Defaults.vmLifetimeSeconds
        memoryMB = try reader.integer(.memoryMb, in: Limits.memoryMB) ?? Defaults.memoryMB
        vcpuCount = try reader.integer(.vcpuCount, oneOf: Limits.vcpuCounts) ?? Defaults.vcpuCount
        capacity = try Self.capacity(reader)
        diskMB = try reader.integer(.diskMb, in: Limits.diskMB)
        diskBudgetMB = try reader.integer(.diskBudgetMb, in: 64...67_108_864)
        diskRate = try Self.diskRate(reader)
        let minimum = try reader.integer(.poolSize, in: 0...1_000) ?? 2
        let maximum = try reader.integer(.poolMaximum, in: 0...1_000) ?? max(8, minimum)
        pool = PoolPolicy.Limits(minimum: min(minimum, maximum), maximum: maximum)
        usesTemplates = try reader.flag(.templates) ?? true
        templatesMaximumMB = try reader.integer(.templatesMaximumMb, in: 64...10_485_760) ?? Defaults.templatesMB
        insecureNoJail = try reader.flag(.insecureNoJail) ?? false
        bootTimeoutSeconds = try reader.integer(.bootTimeoutSeconds, in: 5...600) ?? 120
        outputLimitBytes = try reader.integer(.outputLimitBytes, in: Limits.outputBytes) ?? Defaults.outputBytes
        retention = try Self.retention(reader)
        bodyLimitBytes = try reader.integer(.bodyLimitBytes, in: 1_024...(1 << 30)) ?? Defaults.bodyBytes
        shutdownSeconds = try reader.integer(.shutdownSeconds, in: 0...600) ?? 30
        retentionDays = try reader.integer(.retentionDays, in: 1...36_500) ?? Defaults.retentionDays
        auditRetentionDays = try reader.integer(.auditRetentionDays, in: 1...36_500) ?? Defaults.retentionDays
        auditMaximumEvents = try reader.integer(.auditMaximumEvents, in: 1_000...1_000_000_000) ?? Defaults.auditEvents
        logFormat = try reader.choice(.logFormat) ?? .text
        plansFile = reader.string(.plansFile)
        defaultPlan = reader.string(.defaultPlan)
        publicURL = try reader.url(.publicUrl)
        proxies = try reader.integer(.proxies, in: 0...10) ?? 0
    }

    private static func retention(_ reader: SettingReader) throws -> RetentionLimits {
        var limits = RetentionLimits()
        let seconds = try reader.integer(.outputRetentionSeconds, in: 60...31_536_000)
        limits.outputSeconds = seconds ?? limits.outputSeconds
        let megabytes = try reader.integer(.outputTotalMb, in: 16...10_485_760)
        limits.outputBytes = megabytes.map { $0 << 20 } ?? limits.outputBytes
        let days = try reader.integer(.executionRetentionDays, in: 1...3_650)
        limits.recordSeconds = days.map { $0 * 86_400 } ?? limits.recordSeconds
        return limits
    }

    /// What the operator allows, else what the machine has.
    private static func capacity(_ reader: SettingReader) throws -> HostCapacity.Limits {
        let memory = MemoryPolicy.Limits(
            machine: HostMemory.total,
            budget: try reader.integer(.memoryBudgetMb, in: 128...67_108_864),
            overcommit: try reader.decimal(.memoryOvercommit, in: 1...100) ?? 2
        )
        var limits = HostCapacity.Limits(memory: memory)
        limits.vms = try reader.integer(.maximumVms, in: 1...10_000) ?? limits.vms
        limits.starting = try reader.integer(.maximumStartingVms, in: 1...10_000) ?? limits.starting
        return limits
    }

    private static func diskRate(_ reader: SettingReader) throws -> DiskRate? {
        let megabytes = try reader.integer(.diskMbPerSecond, in: 0...1_000_000) ?? 200
        let requests = try reader.integer(.diskRequestsPerSecond, in: 0...10_000_000) ?? 10_000
        guard megabytes > 0 || requests > 0 else { return nil }
        return DiskRate(bytesPerSecond: megabytes << 20, requestsPerSecond: requests)
    }

    private static var executable: String? {
        try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    }

    /// The `guest/` directory of the checkout that the executable was built in, or what an installation has.
    private static func findResources(from executable: String) -> String {
        var directory = URL(filePath: executable).deletingLastPathComponent()
        while directory.path != "/" {
            let candidate = directory.appending(path: "guest")
            if FileManager.default.fileExists(atPath: candidate.appending(path: "build-image").path) {
                return candidate.path
            }
            directory.deleteLastPathComponent()
        }
        return "/usr/share/swiftlet/guest"
    }
}

/// Reads settings by their names and says what is wrong with them in the user's words.
private struct SettingReader {
    private enum YesOrNo: String, CaseIterable {
        case `true`
        case `false`
    }

    let config: ConfigReader

    func string(_ setting: Setting) -> String? {
        // A number in the file is as good as its text.
        config.string(forKey: ConfigKey(setting.rawValue))
            ?? config.int(forKey: ConfigKey(setting.rawValue)).map(String.init)
    }

    func integer(_ setting: Setting, in range: ClosedRange<Int>) throws -> Int? {
        guard let text = string(setting) else { return nil }
        guard let number = Int(text), range.contains(number) else {
            throw ValidationError(
                "\(name(setting)) is '\(text)'; it must be a number from \(range.lowerBound) to \(range.upperBound)"
            )
        }
        return number
    }

    func integer(_ setting: Setting, oneOf values: [Int]) throws -> Int? {
        guard let text = string(setting) else { return nil }
        guard let number = Int(text), values.contains(number) else {
            let known = values.map(String.init).joined(separator: ", ")
            throw ValidationError("\(name(setting)) is '\(text)'; it must be one of: \(known)")
        }
        return number
    }

    func decimal(_ setting: Setting, in range: ClosedRange<Double>) throws -> Double? {
        guard let text = string(setting) ?? config.double(forKey: ConfigKey(setting.rawValue)).map({ "\($0)" }) else {
            return nil
        }
        guard let number = Double(text), range.contains(number) else {
            throw ValidationError(
                "\(name(setting)) is '\(text)'; it must be a number from \(range.lowerBound) to \(range.upperBound)"
            )
        }
        return number
    }

    func choice<Value: RawRepresentable & CaseIterable>(_ setting: Setting) throws -> Value?
    where Value.RawValue == String {
        guard let text = string(setting) else { return nil }
        guard let value = Value(rawValue: text.lowercased()) else {
            let known = Value.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("\(name(setting)) is '\(text)'; it must be one of: \(known)")
        }
        return value
    }

    /// A truth value; the file's `true` and `false` arrive as the numbers 1 and 0.
    func flag(_ setting: Setting) throws -> Bool? {
        switch string(setting) {
        case "1": true
        case "0": false
        default: try choice(setting).map { (word: YesOrNo) in word == .true }
        }
    }

    func url(_ setting: Setting) throws -> String? {
        guard let text = string(setting) else { return nil }
        guard let url = URLComponents(string: text), ["http", "https"].contains(url.scheme), url.host?.isEmpty == false,
            url.query == nil, url.fragment == nil
        else { throw ValidationError("\(name(setting)) is '\(text)'; it must be like https://swiftlet.example.org") }
        return text.hasSuffix("/") ? String(text.dropLast()) : text
    }

    private func name(_ setting: Setting) -> String {
        "The setting \(setting.rawValue) (--\(setting.flagName), \(setting.environmentName))"
    }
}
