// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOPosix

/// Where a ``TemplateLibrary`` gets templates from; ``StoredTemplates`` is the real one.
protocol TemplateSource: Sendable {
    /// Loads a shape's template from the disk; nil when there is none that can be used.
    func load(_ shape: VMShape) async throws -> LoadedTemplate?

    /// Builds and stores a shape's template.
    ///
    /// - Parameter isWanted: asked when the build could begin, after builds of other servers of this host.
    /// - Returns: the template; one that another server has built meanwhile is loaded. nil when it is not wanted any more.
    func build(_ shape: VMShape, isWanted: @Sendable () -> Bool) async throws -> LoadedTemplate?

    /// Removes a template from the disk.
    func remove(_ template: Template) async

    /// Removes old templates from the disk, but none of these names.
    func evict(keeping names: Set<String>) async
}

/// The templates of a directory, and the builder that makes missing ones.
struct StoredTemplates: TemplateSource {
    let builder: TemplateBuilder
    let limits: TemplateLimits
    let identify: @Sendable (VMShape) -> TemplateIdentity

    private var store: TemplateStore { builder.store }

    func load(_ shape: VMShape) async throws -> LoadedTemplate? {
        let identity = identify(shape)
        return try await builder.resources.blocking.runIfActive { [store, builder] in
            let found = store.load(identity, tscKHz: builder.resources.platform.tscKHz) { reason in
                builder.logger.warning(
                    "A template was removed",
                    metadata: ["template": "\(identity.name)", "reason": "\(reason)"]
                )
            }
            guard let found else { return nil }
            do {
                return LoadedTemplate(template: found, memory: try SealedMemory.load(found.memory))
            } catch {
                builder.logger.error(
                    "A template could not be loaded",
                    metadata: ["template": "\(found.name)", "error": "\(error)"]
                )
                return nil
            }
        }
    }

    func build(_ shape: VMShape, isWanted: @Sendable () -> Bool) async throws -> LoadedTemplate? {
        // Another server may be building, perhaps this very template.
        let lock = try await store.lock(threads: builder.resources.blocking)
        defer { withExtendedLifetime(lock) {} }
        guard isWanted() else { return nil }
        if let loaded = try await load(shape) { return loaded }
        return try await builder.build(identify(shape))
    }

    func remove(_ template: Template) async {
        do {
            try await builder.resources.blocking.runUncancelled { [store] in try store.remove(template.name) }
        } catch {
            // Another clone's failure, or another server, may have removed it.
            builder.logger.notice(
                "A template could not be removed",
                metadata: ["template": "\(template.name)", "error": "\(error)"]
            )
        }
    }

    func evict(keeping names: Set<String>) async {
        do {
            let removed = try await builder.resources.blocking.runIfActive { [store, limits] in
                store.evict(maximumBytes: limits.maximumBytes, maximumAge: limits.maximumAge, keeping: names)
            }
            if !removed.isEmpty {
                builder.logger.notice("Old templates removed", metadata: ["templates": "\(removed)"])
            }
        } catch {
            builder.logger.error("Old templates were not removed", metadata: ["error": "\(error)"])
        }
    }
}
