// SPDX-License-Identifier: Apache-2.0

import AgentClient
import Foundation
import Logging
import NIOCore
import NIOPosix
import SwiftletCore

/// A template whose memory is loaded.
final class LoadedTemplate: Sendable {
    let template: Template
    let memory: SealedMemory

    init(template: Template, memory: SealedMemory) {
        self.template = template
        self.memory = memory
    }
}

/// Makes templates: boots a guest, waits until its interpreters are warm, and freezes it.
struct TemplateBuilder: Sendable {
    let store: TemplateStore
    let resources: EngineContext
    let logger: Logger

    /// Builds a template and publishes it.
    ///
    /// - Throws: `TemplateError` with what went wrong; nothing is left then.
    func build(_ identity: TemplateIdentity) async throws -> LoadedTemplate {
        let started = ContinuousClock.now
        logger.notice("Building a template", metadata: ["template": "\(identity.name)"])
        let work = try await resources.blocking.runIfActive { [store] in try store.makeWorkDirectory() }
        do {
            let loaded = try await build(identity, in: work)
            logger.notice(
                "Template built",
                metadata: [
                    "template": "\(identity.name)", "template.ms": "\((ContinuousClock.now - started).milliseconds)",
                    "template.mb": "\(loaded.template.sizeOnDisk >> 20)",
                ]
            )
            return loaded
        } catch {
            // What cannot be removed now is cleared by a later server.
            try await resources.blocking.runUncancelled { try? FileManager.default.removeItem(atPath: work) }
            if error is TemplateError || error is CancellationError { throw error }
            throw TemplateError("The template \(identity.name) could not be built: \(error)")
        }
    }

    private func build(_ identity: TemplateIdentity, in work: String) async throws -> LoadedTemplate {
        let memory = try SealedMemory.make(size: identity.shape.memoryMB << 20)
        try await boot(identity.shape, into: memory, work: work)
        return try await resources.blocking.runUncancelled { [store, resources] in
            try memory.seal()
            try memory.save("\(work)/memory")
            let template = try store.publish(work, identity: identity, tscKHz: resources.platform.tscKHz)
            return LoadedTemplate(template: template, memory: memory)
        }
    }

    private func boot(_ shape: VMShape, into memory: SealedMemory, work: String) async throws {
        let id = "template-" + UUID().uuidString.prefix(13).lowercased()
        let directory = VMDirectory(path: work, name: id)
        let state = try Descriptor.creating("\(work)/state")
        let launch = QEMULaunch(
            shape: shape,
            start: .bootIntoFile,
            directory: directory,
            memory: memory,
            stateOutput: state.number,
            keepsFiles: true,
            isBackground: true
        )
        let machine = try await QEMUMachine.start(launch, resources: resources, logger: logger)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await machine.run() }
            do {
                try await warm(machine)
                try await machine.within(resources.bootTimeout, "It could not be frozen") { try await machine.freeze() }
            } catch {
                machine.kill(.killed(reason: "Its template could not be built"))
                let console = await machine.consoleTail()
                logger.warning("A template's guest failed", metadata: ["error": "\(error)", "console": "\(console)"])
                throw error
            }
            let end = try await machine.waitForEnd()
            // It may have warned of something on the way.
            guard case .hypervisorExited(let how) = end, how.hasPrefix("exit code 0") else {
                throw TemplateError("Its QEMU failed: \(end)")
            }
            try await resources.blocking.runUncancelled { try directory.forgetProcess() }
        }
    }

    /// Waits until the guest's interpreters are warm.
    private func warm(_ machine: QEMUMachine) async throws {
        let limit = resources.bootTimeout
        _ = try await machine.hello(within: limit)
        try await machine.within(limit, "Its interpreters were not warm") { try await machine.agent.warm() }
    }
}
