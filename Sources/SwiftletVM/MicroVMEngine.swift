// SPDX-License-Identifier: Apache-2.0

import Foundation
package import Logging
import NIOCore
package import NIOPosix
import Synchronization

/// Makes microVMs of one image and owns them all.
///
/// ``run()`` must be running for VMs to live; when it ends, so have they. Callers ask for a shape and get a VM, however it came to
/// be: out of the pool, from a template, or booted.
package final class MicroVMEngine: Sendable {
    private struct State {
        var capacity: HostCapacity
        var accepting = true
        /// Asked for, and not yet taken up by `run()`.
        var waiting: [String: MicroVM] = [:]
        var living: [VMShape: Int] = [:]
    }

    package let accelerator: Accelerator
    /// Whether QEMU runs in a jail, and which cgroup controllers limit it.
    package let protection: (isJailed: Bool, controllers: [String])
    private let resources: VMResources
    private let factory: MachineFactory
    private let logger: Logger
    private let state: Mutex<State>
    private let requests: AsyncStream<MicroVM>
    private let requested: AsyncStream<MicroVM>.Continuation

    /// Clears what an earlier engine left in the directory and gets ready.
    ///
    /// - Parameter threads: for short blocking calls; must outlive the engine.
    /// - Throws: `MicroVMError.cannotStart` when a file is missing, the directory is not to be had, or there is no jail.
    package static func open(
        _ configuration: Configuration,
        threads: NIOThreadPool,
        logger: Logger
    ) async throws -> MicroVMEngine {
        let resources = try await EngineOpening(configuration: configuration, threads: threads, logger: logger).resources()
        let library: TemplateLibrary?
        if let directory = configuration.templates {
            let identify = try await TemplateIdentity.maker(for: configuration, spawner: resources.spawner, threads: threads)
            let store = TemplateStore(directory: directory)
            library = TemplateLibrary(
                builder: TemplateBuilder(store: store, resources: resources, logger: logger),
                limits: configuration.templateLimits,
                logger: logger,
                identify: identify
            )
        } else {
            library = nil
        }
        let factory = MachineFactory(
            configuration: .init(
                commonShape: configuration.commonShape,
                pool: library == nil ? .init(minimum: 0, maximum: 0) : configuration.pool,
                concurrency: max(2, ProcessInfo.processInfo.activeProcessorCount)
            ),
            resources: resources,
            templates: library,
            logger: logger
        )
        return MicroVMEngine(configuration: configuration, resources: resources, factory: factory, logger: logger)
    }

    private init(configuration: Configuration, resources: VMResources, factory: MachineFactory, logger: Logger) {
        accelerator = configuration.accelerator
        protection = (resources.jail != .none, resources.cgroups?.controllers ?? [])
        self.resources = resources
        self.factory = factory
        self.logger = logger
        state = Mutex(State(capacity: HostCapacity(limits: configuration.capacity)))
        (requests, requested) = AsyncStream.makeStream()
    }

    /// VMs that live or start.
    package var livingVMs: Int { state.withLock { $0.capacity.vms } }

    /// What the node's VMs take, and may take.
    package var capacity: HostCapacity { state.withLock { $0.capacity } }

    /// Machines that wait in pools.
    package var idleMachines: Int {
        get async { await factory.idleMachines }
    }

    /// Starts a VM and returns at once; `MicroVM.agent(within:)` tells when it runs.
    ///
    /// - Throws: `MicroVMError.full` when the node has no room for it, `cannotStart` when the engine is ending.
    package func spawn(_ shape: VMShape, environment: [String: String]) throws -> MicroVM {
        let vm = MicroVM(
            shape: shape,
            environment: environment,
            resources: resources,
            factory: factory,
            logger: logger,
            onReady: { [self] in state.withLock { $0.capacity.started() } }
        )
        try state.withLock { state in
            guard state.accepting else { throw MicroVMError.cannotStart("The server is shutting down") }
            try state.capacity.admit(shape)
            state.waiting[vm.id] = vm
        }
        requested.yield(vm)
        return vm
    }

    /// Owns the VMs until it is cancelled; then kills them all and returns when they are gone.
    package func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask { [factory] in await factory.run() }
            for await vm in requests {
                state.withLock { state in
                    state.waiting[vm.id] = nil
                }
                group.addTask { [self] in
                    await vm.run()
                    state.withLock { $0.capacity.release(vm.shape) }
                }
            }
            let abandoned = state.withLock { state in
                state.accepting = false
                return state.waiting.values
            }
            abandoned.forEach { $0.abandon() }
            group.cancelAll()
        }
        let cgroups = resources.cgroups
        do {
            try await resources.blocking.runUncancelled { cgroups?.remove() }
        } catch {
            logger.error("The server's cgroups could not be removed", metadata: ["error": "\(error)"])
        }
    }
}
