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
package final class MicroVMEngine: VMProvider {
    private struct State {
        var capacity: HostCapacity
        var disk: DiskBudget
        var accepting = true
        /// VMs of which something is left.
        var living: [String: MicroVM] = [:]
        /// Asked for, and not yet taken up by `run()`.
        var waiting: [String: MicroVM] = [:]
        var refused = 0
    }

    package let accelerator: Accelerator
    let resources: EngineContext
    let factory: MachinePool<QEMUMachineSource>
    let templates: TemplateLibrary?
    private let memory: MemoryGuard
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
        let resources = try await EngineBootstrap(configuration: configuration, threads: threads, logger: logger)
            .resources()
        let library = try await Self.library(configuration, resources: resources, logger: logger)
        let sample = try await threads.runIfActive {
            MemoryPolicy.Sample(available: try HostMemory.available())
        }
        let memory = MemoryGuard(limits: configuration.capacity.memory, sample: sample, logger: logger)
        let factory = MachinePool(
            configuration: .init(
                commonShape: configuration.commonShape,
                pool: library == nil ? .init(minimum: 0, maximum: 0) : configuration.pool,
                concurrency: max(2, ProcessInfo.processInfo.activeProcessorCount)
            ),
            source: QEMUMachineSource(resources: resources, logger: logger),
            templates: library,
            logger: logger,
            hasRoom: { memory.hasRoomForClone(of: $0) }
        )
        return MicroVMEngine(configuration, resources, factory: factory, templates: library, memory: memory, logger)
    }

    /// The template of a shape, built if it is not there.
    ///
    /// - Throws: `TemplateError`, `MicroVMError`.
    package static func buildTemplate(
        _ configuration: Configuration,
        shape: VMShape,
        threads: NIOThreadPool,
        logger: Logger
    ) async throws -> Template {
        let resources = try await EngineBootstrap(configuration: configuration, threads: threads, logger: logger)
            .resources()
        defer { resources.cgroups?.remove() }
        guard let library = try await library(configuration, resources: resources, logger: logger) else {
            throw TemplateError("Templates are switched off")
        }
        guard let loaded = try await library.loadOrBuild(shape) else {
            throw TemplateError("The template was not built")
        }
        return loaded.template
    }

    /// The templates that a configuration asks for; nil when it asks for none.
    private static func library(
        _ configuration: Configuration,
        resources: EngineContext,
        logger: Logger
    ) async throws -> TemplateLibrary? {
        guard let directory = configuration.templates else { return nil }
        let identify = try await resources.blocking.runIfActive {
            try TemplateIdentity.maker(for: configuration, resources: resources)
        }
        let store = TemplateStore(directory: directory)
        let source = StoredTemplates(
            builder: TemplateBuilder(store: store, resources: resources, logger: logger),
            limits: configuration.templateLimits,
            identify: identify
        )
        return TemplateLibrary(source: source, logger: logger)
    }

    private init(
        _ configuration: Configuration,
        _ resources: EngineContext,
        factory: MachinePool<QEMUMachineSource>,
        templates: TemplateLibrary?,
        memory: MemoryGuard,
        _ logger: Logger
    ) {
        accelerator = configuration.accelerator
        self.resources = resources
        self.factory = factory
        self.templates = templates
        self.memory = memory
        self.logger = logger
        let disk = DiskBudget(limit: configuration.diskBudget)
        state = Mutex(State(capacity: HostCapacity(limits: configuration.capacity), disk: disk))
        (requests, requested) = AsyncStream.makeStream()
    }

    package var numbers: EngineNumbers {
        get async {
            let (idle, taken) = await factory.numbers
            return state.withLock {
                EngineNumbers(
                    capacity: $0.capacity,
                    idle: idle,
                    taken: taken,
                    refused: $0.refused,
                    timings: resources.timings
                )
            }
        }
    }

    package func spawn(
        _ shape: VMShape,
        environment: [String: String],
        diskLimit: UInt64?
    ) throws -> any VirtualMachine {
        let id = MicroVM.makeID()
        let quota = DiskQuota(bytes: min(diskLimit ?? resources.diskLimit, resources.diskLimit))
        let free = DiskBudget.free(in: resources.directory)
        try state.withLock { state in
            guard state.accepting else { throw MicroVMError.cannotStart("The server is shutting down") }
            do {
                // Nothing is taken before all of it is granted.
                var (capacity, disk) = (state.capacity, state.disk)
                try capacity.admit(shape)
                try disk.admit(quota, free: free)
                try memory.admit(id, shape)
                (state.capacity, state.disk) = (capacity, disk)
            } catch {
                state.refused += 1
                throw error
            }
        }
        let vm = MicroVM(
            id: id,
            shape: shape,
            environment: environment,
            diskQuota: quota,
            resources: resources,
            factory: factory,
            // Of the request that wants it.
            logger: .current,
            onReady: { [self] in state.withLock { $0.capacity.started() } }
        )
        let isAccepted = state.withLock { state in
            guard state.accepting else { return false }
            state.waiting[vm.id] = vm
            state.living[vm.id] = vm
            return true
        }
        guard isAccepted else {
            vm.abandon()
            return vm
        }
        requested.yield(vm)
        return vm
    }

    /// VMs of which something is left.
    var livingVMs: [MicroVM] { state.withLock { Array($0.living.values) } }

    private func forget(_ vm: MicroVM) {
        state.withLock { state in
            state.capacity.release(vm.shape)
            state.disk.release(vm.diskQuota)
            state.living[vm.id] = nil
        }
        memory.remove(vm.id)
    }

    package func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask { [factory] in await factory.run() }
            group.addTask { [self] in
                await memory.run {
                    try await self.measureMemory()
                } perform: {
                    await self.perform($0)
                }
            }
            for await vm in requests {
                state.withLock { state in
                    state.waiting[vm.id] = nil
                }
                group.addTask { [self] in
                    await vm.run()
                    forget(vm)
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
