// SPDX-License-Identifier: Apache-2.0

package import Foundation
import Logging
import NIOPosix
import Synchronization

/// The templates of one image on this node: loaded ones, and those being built.
final class TemplateLibrary: Sendable {
    typealias Submit = (@escaping @Sendable () async -> Void) -> Void

    private enum State {
        /// Being looked for on the disk, or built. May become `ready` or `failed`.
        case coming
        case ready(LoadedTemplate)
        /// Tried again after this time.
        case failed(until: ContinuousClock.Instant)
    }

    /// How long a failed build is left alone.
    private static let pause = Duration.seconds(60)

    private let store: TemplateStore
    private let builder: TemplateBuilder
    private let identify: @Sendable (VMShape) -> TemplateIdentity
    private let limits: TemplateLimits
    private let logger: Logger
    private let states = Mutex<[VMShape: State]>([:])

    init(
        builder: TemplateBuilder,
        limits: TemplateLimits,
        logger: Logger,
        identify: @escaping @Sendable (VMShape) -> TemplateIdentity
    ) {
        store = builder.store
        self.builder = builder
        self.limits = limits
        self.logger = logger
        self.identify = identify
    }

    func isReady(_ shape: VMShape) -> Bool {
        states.withLock { if case .ready = $0[shape] { true } else { false } }
    }

    /// MiB that the loaded templates hold, by shape. Blocks for a moment.
    var heldMemory: [VMShape: Int] {
        let loaded = states.withLock { states in
            states.compactMapValues { if case .ready(let loaded) = $0 { loaded } else { nil } }
        }
        return loaded.mapValues { $0.memory.residentSize >> 20 }
    }

    /// Whether it is being loaded or built.
    func isComing(_ shape: VMShape) -> Bool {
        states.withLock { if case .coming = $0[shape] { true } else { false } }
    }

    /// Has a shape's template loaded or built, if it is not on its way.
    func want(_ shape: VMShape, submit: Submit) {
        let isNew = states.withLock { states in
            switch states[shape] {
            case .coming, .ready: return false
            case .failed(let until) where until > .now: return false
            case .failed, nil:
                states[shape] = .coming
                return true
            }
        }
        if isNew { submit { await self.bring(shape) } }
    }

    /// The template of a shape; nil when there is none yet, and then one is on its way.
    func template(for shape: VMShape, submit: Submit) async throws -> LoadedTemplate? {
        if let loaded = ready(shape) { return loaded }
        // What lies on the disk is worth the moment that it takes to load; once, however many ask.
        let isFirst = states.withLock { states in
            if states[shape] != nil { return false }
            states[shape] = .coming
            return true
        }
        guard isFirst else {
            want(shape, submit: submit)
            // One that is only being loaded is there in a moment; one that is being built is not.
            for _ in 0..<15 where isComing(shape) { try await Task.sleep(for: .milliseconds(50)) }
            return ready(shape)
        }
        do {
            let loaded = try await load(shape)
            states.withLock { $0[shape] = loaded.map { .ready($0) } }
            if loaded == nil { want(shape, submit: submit) }
            return loaded
        } catch {
            states.withLock { $0[shape] = nil }
            throw error
        }
    }

    /// Drops a template from memory: it is loaded, or built, anew.
    func forget(_ shape: VMShape) {
        states.withLock { states in
            if case .ready = states[shape] { states[shape] = nil }
        }
    }

    private func ready(_ shape: VMShape) -> LoadedTemplate? {
        states.withLock { if case .ready(let loaded) = $0[shape] { loaded } else { nil } }
    }

    private func load(_ shape: VMShape) async throws -> LoadedTemplate? {
        let identity = identify(shape)
        return try await builder.resources.blocking.runIfActive { [store, builder, logger] in
            let found = store.load(identity, tscKHz: builder.resources.platform.tscKHz) { reason in
                logger.warning(
                    "A template was removed",
                    metadata: ["template": "\(identity.name)", "reason": "\(reason)"]
                )
            }
            guard let found else { return nil }
            do {
                return LoadedTemplate(template: found, memory: try SealedMemory.load(found.memory))
            } catch {
                logger.error(
                    "A template could not be loaded",
                    metadata: ["template": "\(found.name)", "error": "\(error)"]
                )
                return nil
            }
        }
    }

    private func bring(_ shape: VMShape) async {
        do {
            let loaded = try await loadOrBuild(shape)
            states.withLock { $0[shape] = .ready(loaded) }
            await evict()
        } catch {
            states.withLock { $0[shape] = error is CancellationError ? nil : .failed(until: .now + Self.pause) }
            guard !(error is CancellationError) else { return }
            logger.error(
                "No template; VMs of this shape boot, which takes seconds. It is tried again in a minute",
                metadata: ["vm.shape": "\(shape)", "error": "\(error)"]
            )
        }
    }

    /// The template of a shape, built if it is not there.
    func loadOrBuild(_ shape: VMShape) async throws -> LoadedTemplate {
        let identity = identify(shape)
        // Builds run one after another, each keeps a processor busy; and another server may be at the same one.
        let lock = try await store.lock(threads: builder.resources.blocking)
        defer { withExtendedLifetime(lock) {} }
        if let loaded = try await load(shape) { return loaded }
        return try await builder.build(identity)
    }

    private func evict() async {
        let kept = states.withLock { states in
            states.values.compactMap { if case .ready(let loaded) = $0 { loaded.template.name } else { nil } }
        }
        let (store, limits, logger) = (store, limits, logger)
        do {
            let removed = try await builder.resources.blocking.runIfActive {
                store.evict(maximumBytes: limits.maximumBytes, maximumAge: limits.maximumAge, keeping: Set(kept))
            }
            if !removed.isEmpty { logger.notice("Old templates removed", metadata: ["templates": "\(removed)"]) }
        } catch {
            logger.error("Old templates were not removed", metadata: ["error": "\(error)"])
        }
    }
}

/// What templates may take of the disk.
package struct TemplateLimits: Equatable, Sendable {
    package var maximumBytes: Int
    /// Seconds since the last use.
    package var maximumAge: TimeInterval

    package init(maximumBytes: Int = 16 << 30, maximumAge: TimeInterval = 14 * 86_400) {
        self.maximumBytes = maximumBytes
        self.maximumAge = maximumAge
    }
}
