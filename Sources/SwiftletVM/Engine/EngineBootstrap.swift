// SPDX-License-Identifier: Apache-2.0

import CProcess
import Foundation
import Glibc
import Logging
import NIOCore
import NIOPosix

/// Gets an engine's directory, jail and cgroups ready.
struct EngineBootstrap: Sendable {
    let configuration: MicroVMEngine.Configuration
    let threads: NIOThreadPool
    let logger: Logger

    func resources() async throws -> EngineContext {
        try checkPaths()
        // Each VM takes some; the usual 1024 would do for two hundred.
        if cprocess_raise_descriptor_limit() != 0 { logger.warning("The limit on descriptors could not be raised") }
        let configuration = configuration
        let swept = try await threads.runIfActive {
            let swept = try VMDirectory.sweep(configuration.directory)
            try FileManager.default.createDirectory(
                atPath: configuration.directory,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
            return swept
        }
        if swept > 0 {
            logger.notice("Cleared what an earlier server left", metadata: ["vm.directories": "\(swept)"])
        }
        let spawner = NIOThreadPool(numberOfThreads: 1)
        spawner.start()
        let emptyDisk = "\(configuration.directory)/empty.qcow2"
        let qemu = try await QEMUBuild.examine(configuration.qemu, spawner: spawner, threads: threads)
        try await makeEmptyDisk(emptyDisk, with: qemu, spawner: spawner)
        let cgroups = try await threads.runIfActive {
            let cgroups = HostCgroups(owner: configuration.directory)
            cgroups.sweep()
            return cgroups
        }
        if cgroups.controllers.isEmpty {
            logger.warning("This host gives no cgroups: a VM's QEMU is held by its own settings alone")
        }
        return EngineContext(
            qemu: qemu,
            platform: QEMUPlatform(
                accelerator: configuration.accelerator,
                version: qemu.version,
                processor: configuration.processor,
                tscKHz: cprocess_tsc_khz(),
                firmwareDirectories: qemu.firmwareDirectories
            ),
            jail: try await jail(for: qemu, spawner: spawner),
            cgroups: cgroups.controllers.isEmpty ? nil : cgroups,
            mayRenice: Self.mayRenice,
            oomScoreAdjustment: min(HostMemory.ownOOMScoreAdjustment + 500, 1_000),
            imageDirectory: configuration.image.directory,
            kernel: URL(filePath: configuration.image.kernel).lastPathComponent,
            initramfs: URL(filePath: configuration.initramfs).lastPathComponent,
            emptyDisk: emptyDisk,
            directory: configuration.directory,
            bootTimeout: configuration.bootTimeout,
            diskLimit: configuration.diskLimit,
            diskRate: configuration.diskRate,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            spawner: spawner,
            blocking: threads
        )
    }

    /// CAP_SYS_NICE; format: proc(5), /proc/PID/status, and capabilities(7).
    private static var mayRenice: Bool {
        let text = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("CapEff:") }
        let set = line?.split(whereSeparator: \.isWhitespace).last.flatMap { UInt64($0, radix: 16) } ?? 0
        return set & (1 << 23) != 0
    }

    /// QEMU's options have paths in JSON.
    private func checkPaths() throws {
        let paths = [configuration.image.directory, configuration.directory, configuration.templates ?? ""]
        if let path = paths.first(where: { $0.contains { $0 == "\"" || $0 == "\\" } }) {
            throw MicroVMError.cannotStart("\(path) has a quote or a backslash in it; choose another directory")
        }
    }

    private func jail(for qemu: QEMUBuild, spawner: NIOThreadPool) async throws -> Jail {
        guard let bubblewrap = configuration.bubblewrap else {
            logger.warning("QEMU runs WITHOUT A JAIL: a guest that breaks out of it has this server's rights")
            return .none
        }
        guard access(bubblewrap, X_OK) == 0 else {
            throw MicroVMError.cannotStart(
                "\(bubblewrap) is not there, and no VM starts without a jail. Install it with: apt-get install bubblewrap; "
                    + "or, where every guest is trusted, start with --insecure-no-jail"
            )
        }
        let root = try await JailRoot.ensure(
            in: URL(filePath: configuration.directory).deletingLastPathComponent().path,
            qemu: qemu,
            spawner: spawner,
            threads: threads
        )
        let jail = Jail.bubblewrap(executable: bubblewrap, root: root)
        try await check(jail, root: root, spawner: spawner)
        return jail
    }

    /// Starts QEMU once in the jail: a host that forbids user namespaces shows it here and not at the first VM.
    private func check(_ jail: Jail, root: JailRoot, spawner: NIOThreadPool) async throws {
        let disk = "\(configuration.directory)/empty.qcow2"
        let view = Jail.View(image: configuration.image.directory, disk: disk, usesKVM: false)
        let filter = try Descriptor.memory("filter", of: SystemCallFilter(usesKVM: false).bytes)
        let (executable, arguments) = jail.command(qemu: root.qemu, view: view, filter: 3)
        var command = ShortCommand(executable, arguments + ["--version"])
        command.descriptors = [filter.number]
        let outcome = try await command.run(spawner: spawner, threads: threads)
        guard outcome.status == .exited(0) else {
            throw MicroVMError.cannotStart(
                "QEMU's jail does not work here: \(outcome.output.suffix(300).trimmingCharacters(in: .whitespacesAndNewlines)). "
                    + "It needs bubblewrap 0.8 or newer, for --disable-userns, and user namespaces (sysctl user.max_user_namespaces, "
                    + "kernel.unprivileged_userns_clone); "
                    + "or, where every guest is trusted, start with --insecure-no-jail"
            )
        }
    }

    /// An overlay of the root file system's size that is backed by nothing: QEMU is told by what each time.
    private func makeEmptyDisk(_ path: String, with qemu: QEMUBuild, spawner: NIOThreadPool) async throws {
        var status = stat()
        guard stat(configuration.image.rootFileSystem, &status) == 0 else {
            throw MicroVMError.cannotStart("\(configuration.image.rootFileSystem): \(String(cString: strerror(errno)))")
        }
        var command = ShortCommand(qemu.imageTool, ["create", "-q", "-f", "qcow2", path, "\(status.st_size)"])
        command.environment = qemu.environment
        let outcome = try await command.run(spawner: spawner, threads: threads)
        guard outcome.status == .exited(0) else {
            throw MicroVMError.cannotStart("qemu-img create \(path) ended with \(outcome.status): \(outcome.output)")
        }
    }
}
