// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletVM
import Testing

@Suite struct QEMUVersionTests {
    @Test(arguments: [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", 7, 2, 22),
        ("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1.10)", 8, 2, 2),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)", 10, 0, 2),
        ("QEMU emulator version 9.1.90 (v9.2.0-rc0)", 9, 1, 90),
        ("QEMU emulator version 10.1", 10, 1, 0),
    ])
    func aVersionIsReadFromItsLine(line: String, major: Int, minor: Int, patch: Int) {
        #expect(QEMUVersion(line: line) == QEMUVersion(major: major, minor: minor, patch: patch))
    }

    @Test(arguments: [
        "", "qemu-img version 7.2.22 (Debian)", "QEMU emulator version", "QEMU emulator version x.y",
        "QEMU emulator version 7",
        "QEMU emulator version 7.-2",
    ])
    func anyOtherLineIsNoVersion(line: String) {
        #expect(QEMUVersion(line: line) == nil)
    }

    @Test func versionsAreComparedAsNumbers() {
        #expect(QEMUVersion(major: 10, minor: 0) > QEMUVersion(major: 9, minor: 2, patch: 4))
        #expect(QEMUVersion(major: 7, minor: 2) < QEMUVersion(major: 7, minor: 2, patch: 1))
        #expect(QEMUVersion(major: 7, minor: 1, patch: 9) < QEMUVersion.oldest)
    }
}

@Suite struct QEMUArgumentTests {
    private static let old = QEMUVersion(major: 7, minor: 2, patch: 22)
    private static let new = QEMUVersion(major: 10, minor: 0, patch: 2)

    private func platform(
        _ version: QEMUVersion,
        _ accelerator: Accelerator = .tcg,
        _ processor: EmulatedProcessor = .fast
    ) -> QEMUPlatform {
        QEMUPlatform(accelerator: accelerator, version: version, processor: processor, tscKHz: 2_445_406)
    }

    private func arguments(_ platform: QEMUPlatform) -> [String] {
        let files = QEMUCommand.Files(kernel: "k", initramfs: "i", rootFileSystem: "r", templateDisk: "t", disk: "d")
        let shape = VMShape(memoryMB: 512, vcpuCount: 2)
        return QEMUCommand(platform: platform, shape: shape, start: .boot, files: files).arguments
    }

    private func value(of option: String, in arguments: [String]) -> String {
        arguments.firstIndex(of: option).map { arguments[$0 + 1] } ?? ""
    }

    @Test func addressesAreFixedOnlyWhereTranslationsAreFoundByThem() {
        func isFixed(_ platform: QEMUPlatform) -> Bool {
            value(of: "-append", in: arguments(platform)).split(separator: " ").contains("norandmaps")
        }
        #expect(isFixed(platform(Self.old)))
        #expect(!isFixed(platform(Self.new)))
        #expect(!isFixed(platform(QEMUVersion(major: 8, minor: 0))))
        #expect(!isFixed(platform(Self.old, .kvm)))
    }

    @Test func optionROMsAreLeftOutOnlyWhereAGuestStartsWithoutThem() {
        #expect(value(of: "-M", in: arguments(platform(Self.old))).contains("x-option-roms=off"))
        #expect(!value(of: "-M", in: arguments(platform(Self.new))).contains("x-option-roms"))
        #expect(!value(of: "-M", in: arguments(platform(QEMUVersion(major: 8, minor: 2)))).contains("x-option-roms"))
        #expect(Self.new.firmware.contains("linuxboot_dma.bin"))
        #expect(!Self.old.firmware.contains("linuxboot_dma.bin"))
    }

    @Test func theProcessorIsTheSettingsUnderEmulationAndTheHostsUnderKVM() {
        #expect(value(of: "-cpu", in: arguments(platform(Self.old, .tcg, .full))) == "max")
        #expect(value(of: "-cpu", in: arguments(platform(Self.old))) == EmulatedProcessor.fast.model)
        #expect(value(of: "-cpu", in: arguments(platform(Self.old, .kvm))).hasPrefix("host"))
        #expect(value(of: "-cpu", in: arguments(platform(Self.old, .kvm, .full))).hasPrefix("host"))
    }

    @Test func filesThatVMsShareAreNotLocked() {
        let files = QEMUCommand.Files(kernel: "k", initramfs: "i", rootFileSystem: "r", templateDisk: "t", disk: "d")
        let shape = VMShape(memoryMB: 512, vcpuCount: 2)
        for start in [QEMUCommand.Start.boot, .bootIntoFile, .restore] {
            let command = QEMUCommand(platform: platform(Self.old), shape: shape, start: start, files: files)
            let disk = value(of: "-blockdev", in: command.arguments)
            func options(of file: String) -> Substring {
                disk.components(separatedBy: "\"filename\":\"\(file)\"").dropFirst().first?.prefix { $0 != "}" } ?? ""
            }
            #expect(options(of: "r").contains("\"locking\":\"off\""))
            #expect(options(of: "t").contains("\"locking\":\"off\"") == (start == .restore))
            // Two QEMUs on one disk would be a mistake of ours.
            #expect(!options(of: "d").isEmpty && !options(of: "d").contains("locking"))
        }
    }

    @Test func aDiskIsThrottledOnlyWhereARateIsGiven() {
        let files = QEMUCommand.Files(kernel: "k", initramfs: "i", rootFileSystem: "r", templateDisk: "t", disk: "d")
        let shape = VMShape(memoryMB: 512, vcpuCount: 2)
        func arguments(_ rate: DiskRate?) -> [String] {
            let platform = platform(Self.old)
            return QEMUCommand(platform: platform, shape: shape, start: .boot, files: files, diskRate: rate).arguments
        }
        #expect(!arguments(nil).contains { $0.contains("throttle") })
        let limited = arguments(DiskRate(bytesPerSecond: 1_000, requestsPerSecond: 0))
        #expect(limited.contains { $0.contains("x-bps-total=1000,") && !$0.contains("iops") })
        #expect(value(of: "-blockdev", in: limited).hasPrefix("{\"driver\":\"throttle\",\"node-name\":\"root\""))
    }

    @Test func firmwareIsLookedForBesideQEMU() {
        var platform = platform(Self.new)
        platform.firmwareDirectories = ["/opt/qemu/share/qemu", "/opt/qemu/share/seabios"]
        let arguments = arguments(platform)
        let directories = arguments.indices.filter { arguments[$0] == "-L" }.map { arguments[$0 + 1] }
        #expect(directories == platform.firmwareDirectories)
    }
}

@Suite struct TemplateIdentityTests {
    private static let shape = VMShape(memoryMB: 512, vcpuCount: 2)
    private static let platform = QEMUPlatform(
        accelerator: .tcg,
        version: QEMUVersion(major: 7, minor: 2),
        tscKHz: 2_445_406,
        firmwareDirectories: ["/usr/share/qemu"]
    )

    private func identity(_ arguments: [String]) -> TemplateIdentity {
        TemplateIdentity(
            image: "minimal-1",
            imageDigests: [:],
            initramfs: "initramfs-1.cpio",
            shape: Self.shape,
            accelerator: .tcg,
            qemu: "QEMU 7",
            processor: "A processor",
            arguments: arguments
        )
    }

    @Test func eachArgumentThatIsChangedAloneLeadsToAnotherTemplate() {
        let arguments = TemplateIdentity.arguments(of: Self.shape, on: Self.platform)
        let original = identity(arguments)
        var names: Set = [original.name]
        for index in arguments.indices {
            var changed = arguments
            changed[index] += " "
            let other = identity(changed)
            #expect(other != original)
            names.insert(other.name)
        }
        #expect(names.count == arguments.count + 1)
    }

    @Test(arguments: [QEMUCommand.Start.bootIntoFile, .restore])
    func everythingThatQEMUIsStartedWithIsInTheIdentity(start: QEMUCommand.Start) {
        let known = TemplateIdentity.arguments(of: Self.shape, on: Self.platform)
        let files = QEMUCommand.Files(
            kernel: "/image/vmlinuz",
            initramfs: "/image/initramfs",
            rootFileSystem: "/image/rootfs.ext4",
            templateDisk: "/template/disk.qcow2",
            disk: "/vm/disk.qcow2"
        )
        let real = QEMUCommand(platform: Self.platform, shape: Self.shape, start: start, files: files).arguments
        // All that is left out: the files' places and the exact rate of the time stamp counter.
        let stripped = real.map { word in
            let paths = [files.kernel, files.initramfs, files.rootFileSystem, files.templateDisk, files.disk]
            let placeless = paths.reduce(word) { $0.replacing($1, with: "") }
            return placeless.replacing("tsc_early_khz=2445406", with: "tsc_early_khz=1")
        }
        #expect(stripped.allSatisfy(known.contains))
        let offset = start == .bootIntoFile ? 0 : known.count - stripped.count
        #expect(Array(known[offset..<offset + stripped.count]) == stripped)
    }

    @Test func whatDecidesAboutTheArgumentsDecidesAboutTheTemplate() {
        var platforms = [Self.platform]
        for change: (inout QEMUPlatform) -> Void in [
            { $0.accelerator = .kvm }, { $0.version = QEMUVersion(major: 10, minor: 0) }, { $0.processor = .full },
            { $0.firmwareDirectories = ["/opt/qemu"] }, { $0.tscKHz = 0 },
        ] {
            var platform = Self.platform
            change(&platform)
            platforms.append(platform)
        }
        let names = platforms.map { identity(TemplateIdentity.arguments(of: Self.shape, on: $0)).name }
        #expect(Set(names).count == platforms.count)
        // The rate differs a little at each start of the server.
        var later = Self.platform
        later.tscKHz += 100
        #expect(identity(TemplateIdentity.arguments(of: Self.shape, on: later)).name == names[0])
    }
}
