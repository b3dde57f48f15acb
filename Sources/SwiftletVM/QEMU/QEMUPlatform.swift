// SPDX-License-Identifier: Apache-2.0

/// What all machines of an engine have in common, whatever their shape.
package struct QEMUPlatform: Equatable, Sendable {
    package var accelerator: Accelerator
    package var version: QEMUVersion
    /// What an emulated guest sees; with KVM it sees the host's processor.
    package var processor: EmulatedProcessor
    /// The host's time stamp counter in kHz. Under TCG on a busy host the guest's own calibration of it fails, and the boot hangs.
    package var tscKHz: UInt64
    /// Where QEMU looks for firmware.
    package var firmwareDirectories: [String]

    package init(
        accelerator: Accelerator,
        version: QEMUVersion,
        processor: EmulatedProcessor = .fast,
        tscKHz: UInt64,
        firmwareDirectories: [String] = []
    ) {
        self.accelerator = accelerator
        self.version = version
        self.processor = processor
        self.tscKHz = tscKHz
        self.firmwareDirectories = firmwareDirectories
    }
}
