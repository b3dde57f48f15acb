// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOPosix
import SwiftletAccounts
import SwiftletCore
import SwiftletVM

/// From settings to an engine's configuration.
enum EngineFactory {
    /// A configuration with the newest image of the variant and the agent at hand, for software emulation. Blocks.
    ///
    /// - Throws: `ImageError` naming what is missing.
    static func configuration(_ settings: Settings) throws -> MicroVMEngine.Configuration {
        let image = try ImageStore(directory: settings.data.images).newest(settings.imageVariant)
        let initramfs = try Initramfs(agent: settings.agent, resources: settings.resources).ensure(for: image)
        var configuration = MicroVMEngine.Configuration(
            qemu: settings.qemu,
            accelerator: .tcg,
            image: image,
            initramfs: initramfs,
            directory: settings.data.vms
        )
        configuration.bubblewrap = settings.insecureNoJail ? nil : settings.bubblewrap
        if settings.usesTemplates { configuration.templates = settings.data.templates }
        configuration.templateLimits.maximumBytes = settings.templatesMaximumMB << 20
        configuration.commonShape = VMShape(memoryMB: settings.memoryMB, vcpuCount: settings.vcpuCount)
        configuration.pool = settings.pool
        configuration.bootTimeout = .seconds(settings.bootTimeoutSeconds)
        configuration.diskLimit = try diskLimit(settings, image: image)
        configuration.diskBudget = settings.diskBudgetMB.map { UInt64($0) << 20 }
        configuration.diskRate = settings.diskRate
        configuration.capacity = settings.capacity
        return configuration
    }

    /// What a VM whose plan says nothing else may write: what the operator says, else 4 GiB or what the image has room for.
    private static func diskLimit(_ settings: Settings, image: Image) throws -> UInt64 {
        let largest = try image.largestDiskQuota()
        guard let megabytes = settings.diskMB else { return min(4 << 30, largest) }
        try check(megabytes, of: "diskMb", against: largest, image: image)
        return UInt64(megabytes) << 20
    }

    /// Refuses plans of the operator's whose disk the image has no room for. Blocks.
    ///
    /// - Throws: `ImageError` naming the plan.
    static func check(_ plans: PlanCatalog, for image: Image) throws {
        let largest = try image.largestDiskQuota()
        for plan in plans.ofTheOperator {
            guard let megabytes = plan.diskMB else { continue }
            try check(megabytes, of: "diskMb of the plan \(plan.name)", against: largest, image: image)
        }
    }

    private static func check(_ megabytes: Int, of setting: String, against largest: UInt64, image: Image) throws {
        guard UInt64(megabytes) << 20 > largest else { return }
        throw ImageError("\(setting) is \(megabytes), and the image \(image.id) has room for \(largest >> 20) MiB")
    }

    /// The accelerator to use: the operator's word, or the probe's verdict.
    static func accelerator(
        _ settings: Settings,
        configuration: MicroVMEngine.Configuration,
        threads: NIOThreadPool,
        logger: Logger
    ) async throws -> Accelerator {
        switch settings.accelerator {
        case .tcg: return .tcg
        case .kvm: return .kvm
        case .auto: break
        }
        let probe = AcceleratorProbe(configuration: configuration, cache: settings.data.accelerator, logger: logger)
        let verdict = try await probe.verdict(threads: threads)
        logger.notice(
            "Accelerator chosen",
            metadata: ["accelerator": "\(verdict.accelerator)", "reason": "\(verdict.reason)"]
        )
        return verdict.accelerator
    }
}
