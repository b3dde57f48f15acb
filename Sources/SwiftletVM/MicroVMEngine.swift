// SPDX-License-Identifier: Apache-2.0

import CProcess
import Foundation
import Glibc
package import Logging
import NIOCore
package import NIOPosix
import Synchronization

/// Makes microVMs of one image and owns them all.
///
/// ``run()`` must be running for VMs to live; when it ends, so have they. Where a VM boots today a template's clone will be
/// restored: callers ask for a shape and get a VM, however it came to be.
package final class MicroVMEngine: Sendable {
    package struct Configuration: Sendable {
        /// The path of `qemu-system-x86_64`.
        package var qemu: String
        /// The path of `qemu-img`.
        package var qemuImg: String
        package var accelerator: Accelerator
        package var kernel: String
        package var initramfs: String
        package var rootFileSystem: String
        /// Where the VMs' directories are; they are removed when the engine starts.
        package var directory: String
        /// How long a guest may take to boot.
        package var bootTimeout: Duration
        /// How many VMs may live at once.
        package var maximumVMs: Int

        package init(
            qemu: String,
            qemuImg: String,
            accelerator: Accelerator,
            kernel: String,
            initramfs: String,
            rootFileSystem: String,
            directory: String,
            bootTimeout: Duration = .seconds(60),
            maximumVMs: Int = 64
        ) {
            self.qemu = qemu
            self.qemuImg = qemuImg
            self.accelerator = accelerator
            self.kernel = kernel
            self.initramfs = initramfs
            self.rootFileSystem = rootFileSystem
            self.directory = directory
            self.bootTimeout = bootTimeout
            self.maximumVMs = maximumVMs
        }
    }

    private struct State {
        var living = 0
        var accepting = true
        /// Asked for, and not yet taken up by `run()`.
        var waiting: [String: MicroVM] = [:]
    }

    package let accelerator: Accelerator
    private let resources: VMResources
    private let maximumVMs: Int
    private let logger: Logger
    private let state = Mutex(State())
    private let requests: AsyncStream<MicroVM>
    private let requested: AsyncStream<MicroVM>.Continuation

    /// Clears what an earlier engine left in the directory and gets ready.
    ///
    /// - Parameter threads: for short blocking calls; must outlive the engine.
    /// - Throws: `MicroVMError.cannotStart` when a file is missing or the directory is not to be had.
    package static func open(
        _ configuration: Configuration,
        threads: NIOThreadPool,
        logger: Logger
    ) async throws -> MicroVMEngine {
        let emptyDisk = "\(configuration.directory)/empty.qcow2"
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
        try await Self.makeEmptyDisk(emptyDisk, configuration: configuration, spawner: spawner, threads: threads)
        return MicroVMEngine(
            configuration: configuration,
            resources: VMResources(
                qemu: configuration.qemu,
                accelerator: configuration.accelerator,
                kernel: configuration.kernel,
                initramfs: configuration.initramfs,
                emptyDisk: emptyDisk,
                directory: configuration.directory,
                bootTimeout: configuration.bootTimeout,
                tscKHz: cprocess_tsc_khz(),
                eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
                spawner: spawner,
                blocking: threads
            ),
            logger: logger
        )
    }

    private init(configuration: Configuration, resources: VMResources, logger: Logger) {
        accelerator = configuration.accelerator
        maximumVMs = configuration.maximumVMs
        self.resources = resources
        self.logger = logger
        (requests, requested) = AsyncStream.makeStream()
    }

    private static func makeEmptyDisk(
        _ path: String,
        configuration: Configuration,
        spawner: NIOThreadPool,
        threads: NIOThreadPool
    ) async throws {
        let null = try Descriptor.null()
        let process = try await ChildProcess.spawn(
            configuration.qemuImg,
            arguments: ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", configuration.rootFileSystem, path],
            descriptors: [null.number, null.number, 2],
            on: spawner
        )
        let status = try await process.wait(on: threads)
        guard status == .exited(0) else {
            throw MicroVMError.cannotStart("qemu-img create \(path) ended with \(status)")
        }
    }

    /// VMs that live or start.
    package var livingVMs: Int { state.withLock { $0.living } }

    /// Starts a VM and returns at once; `MicroVM.agent(within:)` tells when it runs.
    ///
    /// - Throws: `MicroVMError.cannotStart` when the limit on VMs is reached or the engine is ending.
    package func spawn(_ shape: VMShape, environment: [String: String]) throws -> MicroVM {
        try state.withLock { state in
            guard state.accepting else { throw MicroVMError.cannotStart("The server is shutting down") }
            guard state.living < maximumVMs else {
                throw MicroVMError.full(limit: maximumVMs)
            }
            state.living += 1
        }
        let vm = MicroVM(shape: shape, environment: environment, resources: resources, logger: logger)
        state.withLock { $0.waiting[vm.id] = vm }
        requested.yield(vm)
        return vm
    }

    /// Owns the VMs until it is cancelled; then kills them all and returns when they are gone.
    package func run() async {
        await withDiscardingTaskGroup { group in
            for await vm in requests {
                state.withLock { state in
                    state.waiting[vm.id] = nil
                }
                group.addTask { [self] in
                    await vm.run()
                    state.withLock { $0.living -= 1 }
                }
            }
            let abandoned = state.withLock { state in
                state.accepting = false
                return state.waiting.values
            }
            abandoned.forEach { $0.abandon() }
            group.cancelAll()
        }
    }
}
