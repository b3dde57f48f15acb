// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOPosix
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
        configuration.diskLimit = UInt64(settings.diskMB) << 20
        configuration.capacity = settings.capacity
        return configuration
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
