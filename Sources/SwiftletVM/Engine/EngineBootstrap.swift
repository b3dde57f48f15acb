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
        try await makeEmptyDisk(emptyDisk, spawner: spawner)
        let cgroups = try await threads.runIfActive {
            let cgroups = HostCgroups(owner: configuration.directory)
            cgroups.sweep()
            return cgroups
        }
        if cgroups.controllers.isEmpty {
            logger.warning("This host gives no cgroups: a VM's QEMU is held by its own settings alone")
        }
        return EngineContext(
            qemu: configuration.qemu,
            accelerator: configuration.accelerator,
            jail: try await jail(spawner: spawner),
            cgroups: cgroups.controllers.isEmpty ? nil : cgroups,
            mayRenice: Self.mayRenice,
            imageDirectory: configuration.image.directory,
            kernel: URL(filePath: configuration.image.kernel).lastPathComponent,
            initramfs: URL(filePath: configuration.initramfs).lastPathComponent,
            emptyDisk: emptyDisk,
            directory: configuration.directory,
            bootTimeout: configuration.bootTimeout,
            diskLimit: configuration.diskLimit,
            tscKHz: cprocess_tsc_khz(),
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

    private func jail(spawner: NIOThreadPool) async throws -> Jail {
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
            qemu: configuration.qemu,
            spawner: spawner,
            threads: threads
        )
        let jail = Jail.bubblewrap(executable: bubblewrap, root: root)
        try await check(jail, spawner: spawner)
        return jail
    }

    /// Starts QEMU once in the jail: a host that forbids user namespaces shows it here and not at the first VM.
    private func check(_ jail: Jail, spawner: NIOThreadPool) async throws {
        let disk = "\(configuration.directory)/empty.qcow2"
        let view = Jail.View(image: configuration.image.directory, disk: disk, usesKVM: false)
        let (executable, arguments) = jail.command(qemu: configuration.qemu, view: view)
        let outcome = try await ShortCommand(executable, arguments + ["--version"]).run(
            spawner: spawner,
            threads: threads
        )
        guard outcome.status == .exited(0) else {
            throw MicroVMError.cannotStart(
                "QEMU's jail does not work here: \(outcome.output.suffix(300).trimmingCharacters(in: .whitespacesAndNewlines)). "
                    + "It needs user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone); "
                    + "or, where every guest is trusted, start with --insecure-no-jail"
            )
        }
    }

    /// An overlay of the root file system's size that is backed by nothing: QEMU is told by what each time.
    private func makeEmptyDisk(_ path: String, spawner: NIOThreadPool) async throws {
        var status = stat()
        guard stat(configuration.image.rootFileSystem, &status) == 0 else {
            throw MicroVMError.cannotStart("\(configuration.image.rootFileSystem): \(String(cString: strerror(errno)))")
        }
        let command = ShortCommand(configuration.qemuImg, ["create", "-q", "-f", "qcow2", path, "\(status.st_size)"])
        let outcome = try await command.run(spawner: spawner, threads: threads)
        guard outcome.status == .exited(0) else {
            throw MicroVMError.cannotStart("qemu-img create \(path) ended with \(outcome.status): \(outcome.output)")
        }
    }
}

extension TemplateIdentity {
    /// What makes the identities of an engine's templates, by shape.
    static func maker(
        for configuration: MicroVMEngine.Configuration,
        spawner: NIOThreadPool,
        threads: NIOThreadPool
    ) async throws -> @Sendable (VMShape) -> TemplateIdentity {
        let version = try await ShortCommand(configuration.qemu, ["--version"]).run(spawner: spawner, threads: threads)
        let attributes = try? FileManager.default.attributesOfItem(atPath: configuration.qemu)
        let changed = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
        let line = version.output.split(separator: "\n").first.map(String.init) ?? "no version"
        let processor = HostProcessor.model
        return { shape in
            let files = QEMUCommand.Files(kernel: "", initramfs: "", rootFileSystem: "", templateDisk: "", disk: "")
            let command = QEMUCommand(
                accelerator: configuration.accelerator,
                shape: shape,
                start: .restore,
                files: files,
                tscKHz: 0
            )
            return TemplateIdentity(
                image: configuration.image.id,
                imageDigests: configuration.image.manifest.digests,
                initramfs: URL(filePath: configuration.initramfs).lastPathComponent,
                shape: shape,
                accelerator: configuration.accelerator,
                qemu: "\(line), changed \(Int(changed))",
                processor: processor,
                machine: command.machine + command.processor
            )
        }
    }
}
