// SPDX-License-Identifier: Apache-2.0

/// The command line of one microVM's QEMU.
///
/// QEMU gets its sockets and its memory as inherited descriptors: there is no path that another program could connect to, and
/// none that could be left behind.
package struct QEMUCommand: Sendable {
    /// What the child's descriptors are, by number.
    enum Descriptor: Int32, CaseIterable {
        case stdin = 0
        case stdout = 1
        case stderr = 2
        case console = 3
        case qmp = 4
        case control = 5
        /// The guest's memory; not in a VM that boots for its session.
        case memory = 6
        /// The devices' state; in a clone only.
        case state = 7
        /// The filter of system calls, which bubblewrap takes and closes; nothing without a jail.
        case filter = 8
    }

    /// Where a guest comes from.
    package enum Start: Equatable, Sendable {
        /// The image's kernel, in memory that dies with QEMU.
        case boot
        /// The image's kernel, in the memory file that a template is made of.
        case bootIntoFile
        /// A template, whose pages are copied as they are written.
        case restore
    }

    /// The files as QEMU sees them, in its jail or outside.
    package struct Files: Equatable, Sendable {
        package var kernel: String
        package var initramfs: String
        /// The image's root file system.
        package var rootFileSystem: String
        /// The template's overlay on it; for a clone.
        package var templateDisk: String
        /// This VM's own overlay.
        package var disk: String

        package init(
            kernel: String,
            initramfs: String,
            rootFileSystem: String,
            templateDisk: String,
            disk: String
        ) {
            self.kernel = kernel
            self.initramfs = initramfs
            self.rootFileSystem = rootFileSystem
            self.templateDisk = templateDisk
            self.disk = disk
        }
    }

    package init(platform: QEMUPlatform, shape: VMShape, start: Start, files: Files, diskRate: DiskRate? = nil) {
        self.platform = platform
        self.shape = shape
        self.start = start
        self.files = files
        self.diskRate = diskRate
    }

    var platform: QEMUPlatform
    var shape: VMShape
    var start: Start
    var files: Files
    /// How fast the disk may be used; nil for as fast as it is. A template does not depend on it.
    var diskRate: DiskRate?

    package var arguments: [String] {
        var arguments = ["-name", "swiftlet"] + firmware + machine + processor + memory
        if start != .restore {
            arguments += ["-kernel", files.kernel, "-initrd", files.initramfs, "-append", kernelCommandLine]
        }
        arguments += devices
        switch start {
        case .boot: break
        // A template's clock stands in the past. Clones then see a long time pass, and libraries that renew their random
        // state after a while, as OpenSSL does after an hour, do it.
        case .bootIntoFile: arguments += ["-rtc", "base=2023-11-15T00:00:00"]
        case .restore: arguments += ["-incoming", "defer"]
        }
        return arguments + [
            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]
    }

    private var firmware: [String] { platform.firmwareDirectories.flatMap { ["-L", $0] } }

    private var machine: [String] {
        var machine = "microvm,rtc=on,isa-serial=on"
        if platform.version.startsLinuxWithoutOptionROMs { machine += ",x-option-roms=off" }
        if start != .boot { machine += ",memory-backend=memory" }
        return [
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-M", machine,
            "-m", "\(shape.memoryMB)M", "-smp", "\(shape.vcpuCount)",
        ]
    }

    private var processor: [String] {
        switch platform.accelerator {
        case .tcg: ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", platform.processor.model]
        // Some hosts offer a model-specific register that they then refuse to set, and QEMU aborts.
        case .kvm: ["-accel", "kvm", "-cpu", "host,arch-capabilities=off"]
        }
    }

    private var memory: [String] {
        let path = "/proc/self/fd/\(Descriptor.memory.rawValue)"
        let share = start == .bootIntoFile ? "on" : "off"
        if start == .boot { return [] }
        return ["-object", "memory-backend-file,id=memory,size=\(shape.memoryMB)M,mem-path=\(path),share=\(share)"]
    }

    private var devices: [String] {
        throttle + [
            "-chardev", "socket,id=console,fd=\(Descriptor.console.rawValue)", "-serial", "chardev:console",
            "-chardev", "socket,id=qmp,fd=\(Descriptor.qmp.rawValue)", "-mon", "chardev=qmp,mode=control",
            "-blockdev", blockDevice,
            // A full host disk is an input/output error for the guest; pausing it would look like a hang.
            "-device", "virtio-blk-device,drive=root,werror=report,rerror=report",
            "-device", "virtio-serial-device",
            "-chardev", "socket,id=control,fd=\(Descriptor.control.rawValue)",
            "-device", "virtserialport,chardev=control,name=swiftlet.control",
        ]
    }

    /// The chain of overlays, spelled out: what a qcow2 file's header says of its backing file does not count.
    private var blockDevice: String {
        let image = "{\"driver\":\"raw\",\"read-only\":true,\"file\":\(shared(files.rootFileSystem))}"
        let backing =
            start == .restore ? overlay(shared(files.templateDisk), on: image, more: ",\"read-only\":true") : image
        let name = diskRate == nil ? "root" : "overlay"
        let more = ",\"node-name\":\"\(name)\",\"discard\":\"unmap\",\"cache\":{\"direct\":false,\"no-flush\":true}"
        let disk = overlay(file(files.disk), on: backing, more: more)
        guard diskRate != nil else { return disk }
        return """
            {"driver":"throttle","node-name":"root","throttle-group":"disk","discard":"unmap",\
            "cache":{"direct":false,"no-flush":true},"file":\(disk)}
            """
    }

    /// The limits that the disk's node names; format: QEMU's documentation, docs/throttle.txt.
    private var throttle: [String] {
        guard let diskRate else { return [] }
        let rates = [("bps", diskRate.bytesPerSecond), ("iops", diskRate.requestsPerSecond)].filter { $0.1 > 0 }
        let limits = rates.map { name, value in
            "x-\(name)-total=\(value),x-\(name)-total-max=\(DiskRate.burstFactor * value),"
                + "x-\(name)-total-max-length=\(DiskRate.burstSeconds)"
        }
        return ["-object", "throttle-group,id=disk,\(limits.joined(separator: ","))"]
    }

    private func overlay(_ file: String, on backing: String, more: String) -> String {
        "{\"driver\":\"qcow2\",\"file\":\(file),\"backing\":\(backing)\(more)}"
    }

    /// A file that VMs share and none writes. QEMU does not lock it, and asks for no locks of others: one that its guest has taken
    /// over could hold some for as long as it lives, and no VM would start meanwhile.
    private func shared(_ path: String) -> String { file(path, more: ",\"read-only\":true,\"locking\":\"off\"") }

    private func file(_ path: String, more: String = "") -> String {
        // Paths of ours may hold anything but a quote or a backslash, which `Files` never has; see `EngineBootstrap.checkPaths()`.
        "{\"driver\":\"file\",\"filename\":\"\(path)\",\"discard\":\"unmap\"\(more)}"
    }

    private var kernelCommandLine: String {
        var words = [
            "console=ttyS0", "quiet", "panic=-1", "reboot=t",
            // Of no use inside a machine that serves one tenant, and dear under emulation.
            "mitigations=off",
            "random.trust_cpu=on", "cryptomgr.notests", "no_timer_check",
        ]
        if platform.accelerator == .tcg {
            // Without a clock source finer than its tick the guest has no high resolution timers, and ticks when idle.
            if platform.tscKHz > 0 { words += ["tsc_early_khz=\(platform.tscKHz)", "tsc=reliable"] }
            // All programs then share what was translated of the dynamic linker and libc. A guest serves one tenant.
            if platform.version.findsTranslationsByVirtualAddress { words.append("norandmaps") }
        }
        // The Python interpreter preloads libraries in a template's guest only: a VM that boots for a call must not wait for it.
        if start == .bootIntoFile { words.append("swiftlet.template") }
        return words.joined(separator: " ")
    }
}
