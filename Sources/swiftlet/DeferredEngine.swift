// SPDX-License-Identifier: Apache-2.0

import Logging
import SwiftletSessions
import SwiftletVM
import Synchronization

/// The engine of a server that was started before there is an image for its guests.
///
/// Until an image appears, every request for a VM is refused with the command that brings one; then the engine is opened, without a
/// restart of the server.
final class DeferredEngine: VMProvider {
    typealias Open = @Sendable () async throws -> MicroVMEngine

    private enum State {
        /// There is no engine yet, for this reason.
        case waiting(reason: String)
        case open(MicroVMEngine)
    }

    /// How often an image is looked for.
    private static let interval = Duration.seconds(2)

    private let limits: HostCapacity.Limits
    private let logger: Logger
    private let openEngine: Open
    private let state: Mutex<State>

    /// - Parameter open: opens the engine, or throws `ImageError` while there is no image.
    init(waitingFor error: ImageError, limits: HostCapacity.Limits, logger: Logger, open: @escaping Open) {
        self.limits = limits
        self.logger = logger
        openEngine = open
        state = Mutex(.waiting(reason: "\(error)"))
    }

    func spawn(
        _ shape: VMShape,
        environment: [String: String],
        diskLimit: UInt64?
    ) throws -> any VirtualMachine {
        switch state.withLock({ $0 }) {
        case .waiting(let reason): throw MicroVMError.cannotStart(reason)
        case .open(let engine): try engine.spawn(shape, environment: environment, diskLimit: diskLimit)
        }
    }

    func run() async {
        guard let engine = await engineWithImage() else { return }
        await engine.run()
    }

    var numbers: EngineNumbers {
        get async {
            switch state.withLock({ $0 }) {
            case .waiting: EngineNumbers(capacity: HostCapacity(limits: limits))
            case .open(let engine): await engine.numbers
            }
        }
    }

    /// The engine, once there is an image; nil when this task is cancelled before.
    private func engineWithImage() async -> MicroVMEngine? {
        while !Task.isCancelled {
            do {
                let engine = try await openEngine()
                state.withLock { $0 = .open(engine) }
                logger.notice("There is an image; VMs can start")
                return engine
            } catch let error as ImageError {
                keep("\(error)")
            } catch is CancellationError {
                return nil
            } catch {
                if keep("\(error)") { logger.error("VMs cannot start", metadata: ["error": "\(error)"]) }
            }
            // Cancelled, the loop ends.
            try? await Task.sleep(for: Self.interval)
        }
        return nil
    }

    /// Sets the reason that callers get; false when it is the one that they have got before.
    @discardableResult
    private func keep(_ reason: String) -> Bool {
        state.withLock { state in
            if case .waiting(reason) = state { return false }
            state = .waiting(reason: reason)
            return true
        }
    }
}
