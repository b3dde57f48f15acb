// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOPosix
import SwiftletVM

/// From settings to an engine's configuration.
enum EngineFactory {
    static func configuration(_ settings: Settings, image: Image, initramfs: String) -> MicroVMEngine.Configuration {
        MicroVMEngine.Configuration(
            qemu: settings.qemu,
            qemuImg: "/usr/bin/qemu-img",
            accelerator: .tcg,
            kernel: image.kernel,
            initramfs: initramfs,
            rootFileSystem: image.rootFileSystem,
            directory: settings.data.vms,
            bootTimeout: .seconds(settings.bootTimeoutSeconds),
            maximumVMs: settings.maximumVMs
        )
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
