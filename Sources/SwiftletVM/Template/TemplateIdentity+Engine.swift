// SPDX-License-Identifier: Apache-2.0

import Foundation

extension TemplateIdentity {
    /// What makes the identities of an engine's templates, by shape. Blocks.
    static func maker(
        for configuration: MicroVMEngine.Configuration,
        resources: EngineContext
    ) throws -> @Sendable (VMShape) -> TemplateIdentity {
        let qemu = "\(resources.qemu.line), files \(try resources.qemu.fingerprint())"
        let processor = HostProcessor.description
        let platform = resources.platform
        return { shape in
            TemplateIdentity(
                image: configuration.image.id,
                imageDigests: configuration.image.manifest.digests,
                initramfs: URL(filePath: configuration.initramfs).lastPathComponent,
                shape: shape,
                accelerator: platform.accelerator,
                qemu: qemu,
                processor: processor,
                arguments: arguments(of: shape, on: platform)
            )
        }
    }

    /// All arguments of the QEMU that makes a template of a shape, the kernel's command line among them, and of the QEMU of a clone.
    ///
    /// Left out is what may differ between the two: where files lie, and the exact rate of the time stamp counter, which
    /// `TemplateManifest` compares with a tolerance.
    package static func arguments(of shape: VMShape, on platform: QEMUPlatform) -> [String] {
        var platform = platform
        platform.tscKHz = min(platform.tscKHz, 1)
        let files = QEMUCommand.Files(kernel: "", initramfs: "", rootFileSystem: "", templateDisk: "", disk: "")
        return [QEMUCommand.Start.bootIntoFile, .restore].flatMap { start in
            QEMUCommand(platform: platform, shape: shape, start: start, files: files).arguments
        }
    }
}
