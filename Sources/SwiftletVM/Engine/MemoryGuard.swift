// SPDX-License-Identifier: Apache-2.0

package import Logging
package import SwiftletCore
import Synchronization

/// Measures a node's memory at intervals and carries out what a ``MemoryPolicy`` decides.
package final class MemoryGuard: Sendable {
    /// Reads what the node holds now.
    package typealias Measure = @Sendable () async throws -> MemoryPolicy.Sample
    /// Gives something up; may return before the memory is free.
    package typealias Perform = @Sendable (MemoryPolicy.Action) async -> Void

    /// Between two measurements.
    private static let interval = Duration.seconds(1)
    /// The same while the reserve is touched: a guest can fill some hundred MiB in a second.
    private static let intervalUnderPressure = Duration.milliseconds(200)

    private let policy: Mutex<MemoryPolicy>
    private let time: any TimeSource
    private let logger: Logger
    private let actions: AsyncStream<MemoryPolicy.Action>
    private let decided: AsyncStream<MemoryPolicy.Action>.Continuation

    /// - Parameter sample: what the node holds before any VM is admitted.
    package init(
        limits: MemoryPolicy.Limits,
        sample: MemoryPolicy.Sample,
        time: any TimeSource = SystemTimeSource(),
        logger: Logger
    ) {
        policy = Mutex(MemoryPolicy(limits: limits, sample: sample))
        self.time = time
        self.logger = logger
        (actions, decided) = AsyncStream.makeStream()
    }

    /// Charges a VM that is about to start. What must be given up for it is given up meanwhile.
    ///
    /// - Throws: `MicroVMError.full` when there is no room for it.
    package func admit(_ vm: String, _ shape: VMShape) throws(MicroVMError) {
        let actions = try policy.withLock { policy throws(MicroVMError) in try policy.admit(vm, shape) }
        for action in actions { decided.yield(action) }
    }

    /// A VM is gone.
    package func remove(_ vm: String) {
        policy.withLock { $0.remove(vm) }
    }

    /// Whether one more clone of a shape may be restored to wait.
    package func hasRoomForClone(of shape: VMShape) -> Bool {
        policy.withLock { $0.hasRoomForClone(of: shape) }
    }

    /// Measures and acts until the task is cancelled.
    package func run(measure: @escaping Measure, perform: @escaping Perform) async {
        await withDiscardingTaskGroup { group in
            group.addTask { [self] in
                for await action in actions {
                    log(action)
                    await perform(action)
                }
            }
            while !Task.isCancelled {
                await update(measure)
                let isUnderPressure = policy.withLock { $0.isUnderPressure }
                // Cancelled, the loop ends.
                try? await time.sleep(for: isUnderPressure ? Self.intervalUnderPressure : Self.interval)
            }
            decided.finish()
        }
    }

    private func update(_ measure: Measure) async {
        do {
            let sample = try await measure()
            for action in policy.withLock({ $0.update(sample) }) { decided.yield(action) }
        } catch is CancellationError {
            // The loop ends.
        } catch {
            logger.error("The node's memory could not be measured", metadata: ["error": "\(error)"])
        }
    }

    private func log(_ action: MemoryPolicy.Action) {
        switch action {
        case .dropWaitingClones: logger.notice("Memory is short: waiting clones are ended")
        case .dropUnusedTemplates: logger.notice("Memory is short: unused templates are released")
        case .end(let vm, let reason):
            logger.warning("Memory is short: a VM is ended", metadata: ["vm.id": "\(vm)", "reason": "\(reason)"])
        }
    }
}
