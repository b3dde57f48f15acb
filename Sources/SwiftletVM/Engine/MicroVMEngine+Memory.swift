// SPDX-License-Identifier: Apache-2.0

import NIOPosix

/// What the engine's memory guard measures and does.
extension MicroVMEngine {
    /// What VMs, waiting clones and loaded templates hold.
    func measureMemory() async throws -> MemoryPolicy.Sample {
        let vms = livingVMs
        let waiting = await factory.waiting
        var used = await factory.usedShapes
        used.formUnion(vms.map(\.shape))
        return try await resources.blocking.runIfActive { [templates, used] in
            var sample = MemoryPolicy.Sample(available: try HostMemory.available())
            for vm in vms { sample.vms[vm.id] = vm.heldMemory }
            sample.clones = waiting.compactMap(\.heldMemory).reduce(0, +)
            for (shape, held) in templates?.heldMemory ?? [:] {
                if used.contains(shape) { sample.usedTemplates += held } else { sample.unusedTemplates += held }
            }
            return sample
        }
    }

    func perform(_ action: MemoryPolicy.Action) async {
        switch action {
        case .dropWaitingClones: await factory.dropWaiting()
        case .dropUnusedTemplates: await factory.dropUnusedTemplates(living: Set(livingVMs.map(\.shape)))
        case .end(let id, let reason): livingVMs.first { $0.id == id }?.kill(reason: reason)
        }
    }
}
