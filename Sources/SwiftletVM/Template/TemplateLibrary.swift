// SPDX-License-Identifier: Apache-2.0

package import Foundation
import Logging
import SwiftletCore
import Synchronization

/// The templates of one image on this node: loaded ones, and those being built.
final class TemplateLibrary: Sendable {
    typealias Submit = (@escaping @Sendable () async -> Void) -> Void

    /// Identifies one load or build, so that its result is dropped when the shape was forgotten meanwhile.
    private typealias Ticket = UInt64

    private enum State {
        /// Being loaded, or waiting to be built. May become `ready` or `failed`.
        case coming(Ticket)
        case ready(LoadedTemplate)
        /// Tried again after this time.
        case failed(until: ContinuousClock.Instant)
    }

    private struct Shapes {
        var states: [VMShape: State] = [:]
        var lastTicket: Ticket = 0
        /// When a template of a shape was last removed because it could not be restored.
        var discarded: [VMShape: ContinuousClock.Instant] = [:]

        mutating func begin(_ shape: VMShape) -> Ticket {
            lastTicket += 1
            states[shape] = .coming(lastTicket)
            return lastTicket
        }
    }

    /// How long after a failed build the next one begins.
    private static let pause = Duration.seconds(60)

    private let source: any TemplateSource
    private let time: any TimeSource
    private let logger: Logger
    private let shapes = Mutex(Shapes())
    /// Builds run one after another: each keeps a processor busy.
    private let builds: AsyncSemaphore

    init(source: any TemplateSource, time: any TimeSource = SystemTimeSource(), logger: Logger) {
        self.source = source
        self.time = time
        self.logger = logger
        builds = AsyncSemaphore(time: time)
    }

    func isReady(_ shape: VMShape) -> Bool { ready(shape) != nil }

    /// MiB that the loaded templates hold, by shape. Blocks for a moment.
    var heldMemory: [VMShape: Int] {
        let loaded = shapes.withLock { shapes in
            shapes.states.compactMapValues { if case .ready(let loaded) = $0 { loaded } else { nil } }
        }
        return loaded.mapValues { $0.memory.residentSize >> 20 }
    }

    /// Whether it is being loaded or built.
    func isComing(_ shape: VMShape) -> Bool {
        shapes.withLock { if case .coming = $0.states[shape] { true } else { false } }
    }

    /// Submits the load or build of a shape's template, unless it is loaded, on its way, or failed a moment ago.
    func prepare(_ shape: VMShape, submit: Submit) {
        let now = time.now
        let ticket: Ticket? = shapes.withLock { shapes in
            switch shapes.states[shape] {
            case .coming, .ready: nil
            case .failed(let until) where until > now: nil
            case .failed, nil: shapes.begin(shape)
            }
        }
        if let ticket { submit { await self.build(shape, ticket) } }
    }

    /// The template of a shape; nil when there is none yet, and then its build is submitted.
    func template(for shape: VMShape, submit: Submit) async throws -> LoadedTemplate? {
        if let loaded = ready(shape) { return loaded }
        // A template on the disk is worth the moment that it takes to load; it is loaded once, for all callers.
        let ticket = shapes.withLock { shapes in
            shapes.states[shape] == nil ? shapes.begin(shape) : nil
        }
        guard let ticket else {
            prepare(shape, submit: submit)
            // One that is only being loaded is there in a moment; one that is being built is not.
            for _ in 0..<15 where isComing(shape) { try await time.sleep(for: .milliseconds(50)) }
            return ready(shape)
        }
        do {
            let loaded = try await source.load(shape)
            finish(shape, ticket, with: loaded.map { .ready($0) })
            if loaded == nil { prepare(shape, submit: submit) }
            return loaded
        } catch {
            finish(shape, ticket, with: nil)
            throw error
        }
    }

    /// Releases a template's memory when its last machine ends. The result of a load or build that runs is dropped, and a build that has
    /// not begun does not begin.
    func forget(_ shape: VMShape) {
        shapes.withLock { shapes in
            if case .failed = shapes.states[shape] { return }
            shapes.states[shape] = nil
        }
    }

    /// Removes a template that could not be restored, from memory and from the disk, although its files are intact.
    ///
    /// It is built again at the next request; when that one fails soon too, a minute later.
    func discard(_ loaded: LoadedTemplate, of shape: VMShape, because error: any Error) async {
        let now = time.now
        let isFirst = shapes.withLock { shapes in
            guard case .ready(let current) = shapes.states[shape], current === loaded else { return false }
            let isRepeated = shapes.discarded[shape].map { $0 + Self.pause > now } ?? false
            shapes.discarded[shape] = now
            shapes.states[shape] = isRepeated ? .failed(until: now + Self.pause) : nil
            return true
        }
        guard isFirst else { return }
        logger.error(
            "A template cannot be restored and is removed",
            metadata: ["template": "\(loaded.template.name)", "error": "\(error)"]
        )
        await source.remove(loaded.template)
    }

    /// The template of a shape, built if it is not there.
    func loadOrBuild(_ shape: VMShape) async throws -> LoadedTemplate? {
        try await source.build(shape) { true }
    }

    private func ready(_ shape: VMShape) -> LoadedTemplate? {
        shapes.withLock { if case .ready(let loaded) = $0.states[shape] { loaded } else { nil } }
    }

    private func isComing(_ shape: VMShape, _ ticket: Ticket) -> Bool {
        shapes.withLock { if case .coming(ticket) = $0.states[shape] { true } else { false } }
    }

    /// Sets the outcome of a load or build, unless the shape was forgotten meanwhile.
    private func finish(_ shape: VMShape, _ ticket: Ticket, with state: State?) {
        shapes.withLock { shapes in
            if case .coming(ticket) = shapes.states[shape] { shapes.states[shape] = state }
        }
    }

    private func build(_ shape: VMShape, _ ticket: Ticket) async {
        guard await builds.acquire() == .acquired else { return finish(shape, ticket, with: nil) }
        defer { builds.release() }
        guard isComing(shape, ticket) else { return }
        do {
            let loaded = try await source.build(shape) { [self] in isComing(shape, ticket) }
            finish(shape, ticket, with: loaded.map { .ready($0) })
            await source.evict(keeping: loadedNames)
        } catch is CancellationError {
            finish(shape, ticket, with: nil)
        } catch {
            finish(shape, ticket, with: .failed(until: time.now + Self.pause))
            logger.error(
                "No template; VMs of this shape boot, which takes seconds. It is tried again in a minute",
                metadata: ["vm.shape": "\(shape)", "error": "\(error)"]
            )
        }
    }

    private var loadedNames: Set<String> {
        shapes.withLock { shapes in
            let names = shapes.states.values.compactMap { state -> String? in
                if case .ready(let loaded) = state { loaded.template.name } else { nil }
            }
            return Set(names)
        }
    }
}

/// What templates may take of the disk.
package struct TemplateLimits: Equatable, Sendable {
    package var maximumBytes: Int
    /// Seconds since the last use.
    package var maximumAge: TimeInterval

    package init(maximumBytes: Int = Defaults.templatesMB << 20, maximumAge: TimeInterval = 14 * 86_400) {
        self.maximumBytes = maximumBytes
        self.maximumAge = maximumAge
    }
}
