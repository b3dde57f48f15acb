// SPDX-License-Identifier: Apache-2.0

/// The command line of one microVM's QEMU.
///
/// QEMU gets its sockets as inherited descriptors: there is no path that another program could connect to, and none that could
/// be left behind.
struct QEMUCommand: Sendable {
    /// What the child's descriptors are, by number.
    enum Descriptor: Int32, CaseIterable {
        case stdin = 0
        case stdout = 1
        case stderr = 2
        case console = 3
        case qmp = 4
        case control = 5
    }

    var accelerator: Accelerator
    var shape: VMShape
    var kernel: String
    var initramfs: String
    /// A qcow2 file, this VM's own.
    var disk: String
    /// The host's time stamp counter in kHz. Under TCG on a busy host the guest's own calibration of it fails, and the boot hangs.
    var tscKHz: UInt64

    var arguments: [String] {
        var arguments = [
            "-name", "swiftlet", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-M", "microvm,x-option-roms=off,rtc=on,isa-serial=on",
            "-m", "\(shape.memoryMB)M", "-smp", "\(shape.vcpuCount)",
        ]
        switch accelerator {
        case .tcg: arguments += ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max"]
        // Some hosts offer a model-specific register that they then refuse to set, and QEMU aborts.
        case .kvm: arguments += ["-accel", "kvm", "-cpu", "host,arch-capabilities=off"]
        }
        arguments += ["-kernel", kernel, "-initrd", initramfs, "-append", kernelCommandLine]
        arguments += [
            "-chardev", "socket,id=console,fd=\(Descriptor.console.rawValue)", "-serial", "chardev:console",
            "-chardev", "socket,id=qmp,fd=\(Descriptor.qmp.rawValue)", "-mon", "chardev=qmp,mode=control",
            // A full host disk is an input/output error for the guest; pausing it would look like a hang.
            "-drive",
            "if=none,id=root,format=qcow2,file=\(disk),cache=unsafe,discard=unmap,werror=report,rerror=report",
            "-device", "virtio-blk-device,drive=root",
            "-device", "virtio-serial-device",
            "-chardev", "socket,id=control,fd=\(Descriptor.control.rawValue)",
            "-device", "virtserialport,chardev=control,name=swiftlet.control",
        ]
        return arguments
    }

    private var kernelCommandLine: String {
        var words = [
            "console=ttyS0", "quiet", "panic=-1", "reboot=t",
            // Of no use inside a machine that serves one tenant, and dear under emulation.
            "mitigations=off",
            "random.trust_cpu=on", "cryptomgr.notests", "no_timer_check",
        ]
        if accelerator == .tcg, tscKHz > 0 { words.append("tsc_early_khz=\(tscKHz)") }
        return words.joined(separator: " ")
    }
}
