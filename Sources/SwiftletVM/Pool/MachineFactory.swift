// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOCore
import NIOPosix

/// Gets machines: out of a pool, from a template, or by booting, and keeps the pools filled.
///
/// ``run()`` owns the machines and all work on them.
actor MachineFactory {
    struct Configuration: Sendable {
        /// The shape that most sessions have: its template is built and its pool filled from the start.
        var commonShape: VMShape
        /// Waiting machines of that shape, and of each shape at the most.
        var pool: PoolPlan.Limits
        /// Machines being started at once.
        var concurrency: Int
    }

    typealias Job = @Sendable () async -> Void

    private struct Pool {
        var plan: PoolPlan
        var idle: [Machine] = []
        var callers: [PoolPlan.Ticket: EventLoopPromise<(Machine, Machine.Origin)>] = [:]
        var usedAt = ContinuousClock.now
    }

    /// A refill waits for this long after a machine was taken: its first call has the processors for itself.
    private static let courtesy = Duration.milliseconds(50)
    /// A pool that nobody has asked for in this time is given up, with its template's memory.
    private static let poolAge = Duration.seconds(600)

    private let configuration: Configuration
    private let resources: VMResources
    private let templates: TemplateLibrary?
    private let logger: Logger
    private var pools: [VMShape: Pool] = [:]
    private var taken: [Machine.Origin: Int] = [:]
    private var starting = 0
    private var refilling = 0
    private var lastTaken = ContinuousClock.now
    private let jobs: AsyncStream<Job>
    private let submitted: AsyncStream<Job>.Continuation

    init(configuration: Configuration, resources: VMResources, templates: TemplateLibrary?, logger: Logger) {
        self.configuration = configuration
        self.resources = resources
        self.templates = templates
        self.logger = logger
        (jobs, submitted) = AsyncStream.makeStream()
    }

    /// Machines that wait, by shape, and machines given to callers so far, by origin.
    var numbers: (idle: [VMShape: Int], taken: [String: Int]) {
        (pools.mapValues(\.idle.count), Dictionary(uniqueKeysWithValues: taken.map { ($0.key.rawValue, $0.value) }))
    }

    /// Owns everything until it is cancelled; returns when nothing is left.
    func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask { await self.keepTime() }
            for await job in jobs { group.addTask { await job() } }
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
    func take(_ shape: VMShape) async throws -> (Machine, Machine.Origin) {
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
            let promise = resources.eventLoopGroup.next().makePromise(of: (Machine, Machine.Origin).self)
            pools[shape]?.callers[ticket] = promise
            serve()
            return try await withTaskCancellationHandler {
                try await promise.futureResult.get()
            } onCancel: {
                submitted.yield { await self.leave(ticket, shape: shape) }
            }
        }
    }

    private func popIdle(_ shape: VMShape) -> Machine? {
        guard let machine = pools[shape]?.idle.popLast() else { return nil }
        return machine.end == nil ? machine : nil
    }

    private func leave(_ ticket: PoolPlan.Ticket, shape: VMShape) {
        guard let promise = pools[shape]?.callers.removeValue(forKey: ticket) else { return }
        _ = pools[shape]?.plan.leave(ticket)
        promise.fail(CancellationError())
    }

    private func failCallers(_ error: MicroVMError) {
        for shape in pools.keys {
            let callers = pools[shape]?.callers ?? [:]
            pools[shape]?.callers = [:]
            for promise in callers.values { promise.fail(error) }
        }
    }

    // MARK: Starting machines

    private func pool(_ shape: VMShape) -> Pool {
        if let known = pools[shape] { return known }
        var limits = configuration.pool
        if shape != configuration.commonShape { limits.minimum = 0 }
        let fresh = Pool(plan: PoolPlan(limits: limits))
        pools[shape] = fresh
        return fresh
    }

    /// Begins as many starts for callers as may run at once, the longest waiting shape first.
    private func serve() {
        while starting < configuration.concurrency,
            let shape = pools.filter({ $0.value.plan.unserved > 0 }).min(by: { $0.value.usedAt < $1.value.usedAt })?.key
        {
            start(shape, isRefill: false)
        }
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
        guard starting == 0, refilling == 0, lastTaken + Self.courtesy <= .now else { return }
        for shape in pools.keys.sorted(by: { $0.tag < $1.tag }) {
            guard let plan = pools[shape]?.plan, plan.deficit(at: .now) > 0, let templates else { continue }
            guard templates.isReady(shape) else {
                templates.want(shape, submit: submit)
                continue
            }
            start(shape, isRefill: true)
            return
        }
    }

    private nonisolated func submit(_ job: @escaping Job) {
        submitted.yield(job)
    }

    private func start(_ shape: VMShape, isRefill: Bool) {
        pools[shape]?.plan.start()
        if isRefill { refilling += 1 } else { starting += 1 }
        submitted.yield { [self] in
            do {
                let (machine, origin) = try await obtain(shape, isRefill: isRefill)
                await deliver(machine, origin, isRefill: isRefill)
            } catch {
                await fail(shape, error, isRefill: isRefill)
            }
        }
    }

    private nonisolated func obtain(_ shape: VMShape, isRefill: Bool) async throws -> (Machine, Machine.Origin) {
        let loaded = try await templates?.template(for: shape, submit: submit)
        guard loaded != nil || !isRefill else { throw MicroVMError.cannotStart("There is no template yet") }
        let machine: Machine
        do {
            machine = try await Machine.start(
                shape,
                memory: loaded,
                isBackground: isRefill,
                resources: resources,
                logger: logger
            )
        } catch let error where loaded != nil {
            // Its files may have been removed; the next caller gets another.
            templates?.forget(shape)
            throw error
        }
        own(machine)
        do {
            guard loaded != nil else {
                // Booting is work for the host's processors, as a restore is.
                _ = try await machine.hello(within: resources.bootTimeout)
                return (machine, .boot)
            }
            try await machine.restore()
            if isRefill { try await settle(machine) }
            return (machine, .template)
        } catch {
            machine.kill(.killed(reason: "It could not be started: \(error)"))
            if loaded != nil { templates?.forget(shape) }
            throw error
        }
    }

    /// Lets a clone go through the ways of a call, and pauses it.
    private nonisolated func settle(_ machine: Machine) async throws {
        let limit = resources.bootTimeout
        let timer = machine.agent.eventLoop.scheduleTask(in: .nanoseconds(Int64(limit.seconds * 1e9))) {
            machine.kill(.killed(reason: "It did not come to rest"))
        }
        defer { timer.cancel() }
        machine.resume()
        try await machine.agent.rehearse(.fresh(hostName: "rehearsal", diskLimit: resources.diskLimit))
        try await machine.pause()
    }

    private nonisolated func own(_ machine: Machine) {
        let result = submitted.yield { [self] in
            await machine.run()
            await ended(machine)
        }
        if case .enqueued = result { return }
        machine.kill(.killed(reason: "The server is shutting down"))
    }

    private func deliver(_ machine: Machine, _ origin: Machine.Origin, isRefill: Bool) {
        finishStart(isRefill)
        switch pools[machine.shape]?.plan.started() {
        case .give(let ticket):
            taken[origin, default: 0] += 1
            pools[machine.shape]?.callers.removeValue(forKey: ticket)?.succeed((machine, origin))
        case .keep where isRefill && machine.end == nil:
            pools[machine.shape]?.idle.append(machine)
        case .keep:
            // The caller it was for has gone, and it never went through a rehearsal.
            pools[machine.shape]?.plan.lost()
            machine.kill(.killed(reason: "Nobody needed it any more"))
        case nil:
            machine.kill(.killed(reason: "Its pool was given up"))
        }
        serve()
        refill()
    }

    private func fail(_ shape: VMShape, _ error: any Error, isRefill: Bool) {
        finishStart(isRefill)
        if !(error is CancellationError) {
            logger.error("A machine could not be started", metadata: ["vm.shape": "\(shape)", "error": "\(error)"])
        }
        if let ticket = pools[shape]?.plan.failed() {
            let reason = error as? MicroVMError ?? .cannotStart("\(error)")
            pools[shape]?.callers.removeValue(forKey: ticket)?.fail(reason)
        }
        serve()
    }

    private func finishStart(_ isRefill: Bool) {
        if isRefill { refilling -= 1 } else { starting -= 1 }
    }

    // MARK: Letting go

    private func ended(_ machine: Machine) {
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
            if shape != configuration.commonShape, let pool = pools[shape], pool.usedAt + Self.poolAge < .now,
                pool.plan.idle + pool.plan.starting == 0, pool.callers.isEmpty
            {
                pools[shape] = nil
                templates?.forget(shape)
            }
        }
    }
}
