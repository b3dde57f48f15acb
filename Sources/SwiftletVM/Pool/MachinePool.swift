// SPDX-License-Identifier: Apache-2.0

import AgentClient
import Foundation
import Logging
import NIOCore
import NIOPosix
import SwiftletCore
import SwiftletMetrics

/// Gets machines: out of a pool, from a template, or by booting, and keeps the pools filled.
///
/// ``run()`` owns the machines and all work on them.
actor MachinePool {
    struct Configuration: Sendable {
        /// The shape that most sessions have: its template is built and its pool filled from the start.
        var commonShape: VMShape
        /// Waiting machines of that shape, and of each shape at the most.
        var pool: PoolPolicy.Limits
        /// Machines being started at once.
        var concurrency: Int
    }

    typealias Job = @Sendable () async -> Void

    /// A refill waits for this long after a machine was taken: its first call has the processors for itself.
    private static let courtesy = Duration.milliseconds(50)
    /// A pool that nobody has asked for in this time is given up, with its template's memory.
    private static let poolAge = Duration.seconds(600)
    /// Shapes whose templates are held in memory at the most; beyond, the longest unused are given up.
    private static let poolLimit = 8

    private let configuration: Configuration
    private let resources: EngineContext
    private let templates: TemplateLibrary?
    /// Whether there is memory for one more machine of a shape that waits.
    private let hasRoom: @Sendable (VMShape) -> Bool
    private let logger: Logger
    private var pools: [VMShape: ShapePool] = [:]
    private var taken: [QEMUMachine.Origin: Int] = [:]
    /// Starts for callers, restores and boots apart: a boot takes seconds and must not hold restores up.
    private var starting: [QEMUMachine.Origin: Int] = [:]
    private var isClosed = false
    private var lastTaken = ContinuousClock.now
    private let jobs: AsyncStream<Job>
    private let submitted: AsyncStream<Job>.Continuation

    init(
        configuration: Configuration,
        resources: EngineContext,
        templates: TemplateLibrary?,
        logger: Logger,
        hasRoom: @escaping @Sendable (VMShape) -> Bool
    ) {
        self.configuration = configuration
        self.hasRoom = hasRoom
        self.resources = resources
        self.templates = templates
        self.logger = logger
        (jobs, submitted) = AsyncStream.makeStream()
    }

    /// Machines that wait, by shape, and machines given to callers so far, by origin.
    var numbers: (idle: [VMShape: Int], taken: [String: Int]) {
        (pools.mapValues(\.idle.count), Dictionary(uniqueKeysWithValues: taken.map { ($0.key.rawValue, $0.value) }))
    }

    /// All waiting machines.
    var waiting: [QEMUMachine] { pools.values.flatMap(\.idle) }

    /// Shapes of which machines wait or are on their way.
    var usedShapes: Set<VMShape> { Set(pools.filter { !$0.value.idle.isEmpty || !$0.value.isQuiet }.keys) }

    /// Owns everything until it is cancelled; returns when nothing is left.
    func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask { await self.keepTime() }
            for await job in jobs { group.addTask { await job() } }
            isClosed = true
            submitted.finish()
            group.cancelAll()
            failCallers(.cannotStart("The server is shutting down"))
        }
    }

    private func keepTime() async {
        if configuration.pool.minimum > 0 { _ = pool(configuration.commonShape) }
        while !Task.isCancelled {
            refill()
            shrink()
            // Cancelled, the loop ends.
            try? await Task.sleep(for: .seconds(1))
        }
    }

    // MARK: Callers

    /// A machine of a shape, its guest stopped, and where it came from. Whoever takes it kills it in the end.
    func take(_ shape: VMShape) async throws -> (QEMUMachine, QEMUMachine.Origin) {
        guard !isClosed else { throw MicroVMError.cannotStart("The server is shutting down") }
        var current = pool(shape)
        current.usedAt = .now
        lastTaken = .now
        let request = current.plan.request(at: .now)
        pools[shape] = current
        switch request {
        case .hit:
            scheduleRefill()
            if let machine = popIdle(shape) {
                taken[.pool, default: 0] += 1
                return (machine, .pool)
            }
            return try await take(shape)
        case .queued(let ticket):
            let promise = resources.eventLoopGroup.next().makePromise(of: (QEMUMachine, QEMUMachine.Origin).self)
            pools[shape]?.callers[ticket] = ShapePool.Caller(promise: promise)
            serve()
            return try await withTaskCancellationHandler {
                try await promise.futureResult.get()
            } onCancel: {
                submitted.yield { await self.leave(ticket, shape: shape) }
            }
        }
    }

    private func popIdle(_ shape: VMShape) -> QEMUMachine? {
        guard let machine = pools[shape]?.idle.popLast() else { return nil }
        return machine.end == nil ? machine : nil
    }

    private func leave(_ ticket: PoolPolicy.Ticket, shape: VMShape) {
        guard let caller = pools[shape]?.callers.removeValue(forKey: ticket) else { return }
        _ = pools[shape]?.plan.leave(ticket)
        caller.promise.fail(CancellationError())
    }

    private func failCallers(_ error: MicroVMError) {
        for shape in pools.keys {
            let callers = pools[shape]?.callers ?? [:]
            pools[shape]?.callers = [:]
            for caller in callers.values { caller.promise.fail(error) }
        }
    }

    // MARK: Starting machines

    private func pool(_ shape: VMShape) -> ShapePool {
        if let known = pools[shape] { return known }
        var limits = configuration.pool
        if shape != configuration.commonShape { limits.minimum = 0 }
        let fresh = ShapePool(plan: PoolPolicy(limits: limits))
        pools[shape] = fresh
        return fresh
    }

    /// Begins as many starts for callers as may run at once, the longest waiting caller's first.
    private func serve() {
        while let shape = nextWaiting() { start(shape, isRefill: false) }
    }

    private func nextWaiting() -> VMShape? {
        let waiting = pools.compactMap { shape, pool in pool.waitingSince.map { (shape, $0) } }
        return waiting.sorted { $0.1 < $1.1 }.map(\.0).first(where: mayStart)
    }

    private func mayStart(_ shape: VMShape) -> Bool {
        guard starting[kind(of: shape), default: 0] < configuration.concurrency else { return false }
        // While a template is being built one guest boots for whoever came first; the others are served faster by waiting.
        guard let templates, templates.isComing(shape) else { return true }
        return pools[shape]?.plan.starting == 0
    }

    private func kind(of shape: VMShape) -> QEMUMachine.Origin {
        templates?.isReady(shape) == true ? .template : .boot
    }

    private func scheduleRefill() {
        submitted.yield { [self] in
            // Cancelled, there is nothing to refill.
            try? await Task.sleep(for: Self.courtesy)
            await refill()
        }
    }

    /// Begins one start for a pool, if nobody waits for a machine and no other refill runs.
    private func refill() {
        let isQuiet = starting.values.allSatisfy { $0 == 0 } && lastTaken + Self.courtesy <= .now
        guard isQuiet, pools.values.allSatisfy({ $0.plan.refilling == 0 }), !isClosed else { return }
        // All pools together, so that sessions of many shapes do not fill the memory with clones that wait.
        guard pools.values.reduce(0, { $0 + $1.plan.idle }) < configuration.pool.maximum else { return }
        for shape in pools.keys.sorted(by: { $0.tag < $1.tag }) {
            guard let plan = pools[shape]?.plan, plan.deficit(at: .now) > 0, let templates, hasRoom(shape) else {
                continue
            }
            guard templates.isReady(shape) else {
                templates.want(shape, submit: submit)
                continue
            }
            start(shape, isRefill: true)
            return
        }
    }

    /// Owns a template's coming; then there may be more to do.
    private nonisolated func submit(_ job: @escaping Job) {
        submitted.yield { [self] in
            await job()
            await serve()
        }
    }

    private func start(_ shape: VMShape, isRefill: Bool) {
        pools[shape]?.plan.start(isRefill: isRefill)
        let slot = isRefill ? nil : kind(of: shape)
        if let slot { starting[slot, default: 0] += 1 }
        submitted.yield { [self] in
            do {
                let (machine, origin) = try await obtain(shape, isRefill: isRefill)
                await finishStart(slot)
                await deliver(machine, origin, isRefill: isRefill)
            } catch {
                await finishStart(slot)
                await fail(shape, error, isRefill: isRefill)
            }
        }
    }

    private func finishStart(_ slot: QEMUMachine.Origin?) {
        if let slot { starting[slot, default: 0] -= 1 }
    }

    private nonisolated func obtain(_ shape: VMShape, isRefill: Bool) async throws -> (QEMUMachine, QEMUMachine.Origin)
    {
        do {
            return try await obtainOnce(shape, isRefill: isRefill)
        } catch let error where !isRefill && !(error is CancellationError) && templates?.isReady(shape) == true {
            // The template's files may have been removed; without them there are others, or a boot.
            logger.warning("A template could not be used", metadata: ["vm.shape": "\(shape)", "error": "\(error)"])
            templates?.forget(shape)
            return try await obtainOnce(shape, isRefill: isRefill)
        }
    }

    private nonisolated func obtainOnce(_ shape: VMShape, isRefill: Bool) async throws -> (
        QEMUMachine, QEMUMachine.Origin
    ) {
        let loaded = try await templates?.template(for: shape, submit: submit)
        guard loaded != nil || !isRefill else { throw MicroVMError.cannotStart("There is no template yet") }
        let begun = ContinuousClock.now
        let machine = try await QEMUMachine.start(
            shape,
            memory: loaded,
            isBackground: isRefill,
            resources: resources,
            logger: logger
        )
        try await own(machine)
        do {
            guard loaded != nil else {
                // Booting is work for the host's processors, as a restore is.
                _ = try await machine.hello(within: resources.bootTimeout)
                return (machine, .boot)
            }
            try await machine.within(resources.bootTimeout, "It was not restored") { try await machine.restore() }
            let labels = ["for": isRefill ? "pool" : "session"]
            resources.timings.restore.observe((ContinuousClock.now - begun).seconds, labels)
            if isRefill { try await settle(machine) }
            return (machine, .template)
        } catch {
            machine.kill(.killed(reason: "It could not be started: \(error)"))
            throw error
        }
    }

    /// Lets a clone go through the ways of a call, and pauses it.
    private nonisolated func settle(_ machine: QEMUMachine) async throws {
        try await machine.within(resources.bootTimeout, "It did not come to rest") {
            machine.resume()
            try await machine.agent.rehearse(.fresh(hostName: "rehearsal", diskLimit: resources.diskLimit))
            try await machine.pause()
        }
    }

    /// Hands a machine's life to `run()`; when that is ending, sees to its end here.
    private nonisolated func own(_ machine: QEMUMachine) async throws {
        let result = submitted.yield { [self] in
            await machine.run()
            await ended(machine)
        }
        if case .enqueued = result { return }
        machine.kill(.killed(reason: "The server is shutting down"))
        await machine.run()
        throw MicroVMError.cannotStart("The server is shutting down")
    }

    private func deliver(_ machine: QEMUMachine, _ origin: QEMUMachine.Origin, isRefill: Bool) {
        switch pools[machine.shape]?.plan.started(isRefill: isRefill) {
        case .give(let ticket):
            taken[origin, default: 0] += 1
            pools[machine.shape]?.callers.removeValue(forKey: ticket)?.promise.succeed((machine, origin))
        case .keep where machine.end == nil:
            pools[machine.shape]?.idle.append(machine)
        case .keep:
            pools[machine.shape]?.plan.lost()
        case .refill:
            settleLate(machine, origin)
        case nil:
            machine.kill(.killed(reason: "Its pool was given up"))
        }
        serve()
        refill()
    }

    /// A machine whose caller was served by another becomes the pool's.
    private func settleLate(_ machine: QEMUMachine, _ origin: QEMUMachine.Origin) {
        submitted.yield { [self] in
            do {
                guard origin != .boot else { throw MicroVMError.cannotStart("Nobody needs it any more") }
                try await settle(machine)
                await deliver(machine, origin, isRefill: true)
            } catch {
                machine.kill(.killed(reason: "\(error)"))
                await giveUp(machine.shape)
            }
        }
    }

    private func giveUp(_ shape: VMShape) {
        _ = pools[shape]?.plan.failed(isRefill: true)
        serve()
    }

    private func fail(_ shape: VMShape, _ error: any Error, isRefill: Bool) {
        if !(error is CancellationError), !isClosed {
            logger.error("A machine could not be started", metadata: ["vm.shape": "\(shape)", "error": "\(error)"])
        }
        if isRefill { templates?.forget(shape) }
        if let ticket = pools[shape]?.plan.failed(isRefill: isRefill) {
            let reason = error as? MicroVMError ?? .cannotStart("\(error)")
            pools[shape]?.callers.removeValue(forKey: ticket)?.promise.fail(reason)
        }
        serve()
    }

    // MARK: Letting go

    private func ended(_ machine: QEMUMachine) {
        guard let index = pools[machine.shape]?.idle.firstIndex(where: { $0 === machine }) else { return }
        pools[machine.shape]?.idle.remove(at: index)
        pools[machine.shape]?.plan.lost()
        logger.warning("A waiting machine ended", metadata: ["vm.end": "\(machine.end.map { "\($0)" } ?? "")"])
    }

    private func shrink() {
        for shape in pools.keys {
            guard let plan = pools[shape]?.plan else { continue }
            for _ in 0..<plan.surplus(at: .now) {
                guard let machine = pools[shape]?.idle.popLast() else { break }
                pools[shape]?.plan.lost()
                machine.kill(.killed(reason: "The pool shrinks"))
            }
            let isOld = (pools[shape]?.usedAt ?? .now) + Self.poolAge < .now
            if isOld, shape != configuration.commonShape { giveUpPool(shape) }
        }
        while pools.count > Self.poolLimit,
            let shape = pools.filter({ $0.key != configuration.commonShape && $0.value.isQuiet })
                .min(by: { $0.value.usedAt < $1.value.usedAt })?.key
        {
            giveUpPool(shape)
        }
    }

    /// Ends all waiting machines, for want of memory.
    func dropWaiting() {
        for shape in pools.keys {
            while let machine = pools[shape]?.idle.popLast() {
                pools[shape]?.plan.lost()
                machine.kill(.killed(reason: "The node's memory is short"))
            }
        }
    }

    /// Releases the memory of templates whose shapes no machine has.
    ///
    /// - Parameter living: shapes of VMs.
    func dropUnusedTemplates(living: Set<VMShape>) {
        guard let templates else { return }
        for shape in templates.heldMemory.keys where !living.contains(shape) && !usedShapes.contains(shape) {
            templates.forget(shape)
        }
    }

    /// Lets go of a shape's waiting machines and of its template's memory.
    private func giveUpPool(_ shape: VMShape) {
        guard let pool = pools[shape], pool.isQuiet else { return }
        pools[shape] = nil
        for machine in pool.idle { machine.kill(.killed(reason: "Its pool was given up")) }
        templates?.forget(shape)
    }
}
