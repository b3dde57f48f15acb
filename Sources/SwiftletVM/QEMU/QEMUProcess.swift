// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import NIOCore
import NIOPosix

/// A QEMU that was started, with our ends of its sockets.
struct QEMUProcess: Sendable {
    let process: ChildProcess
    let agent: AgentConnection
    private let qmp: QMPConnection
    private let console: TailCapture
    private let errors: TailCapture
    private let resources: VMResources

    /// Spawns QEMU. When anything fails, nothing of it is left.
    static func start(resources: VMResources, shape: VMShape, directory: VMDirectory) async throws -> QEMUProcess {
        let command = QEMUCommand(
            accelerator: resources.accelerator,
            shape: shape,
            kernel: resources.kernel,
            initramfs: resources.initramfs,
            disk: directory.disk,
            tscKHz: resources.tscKHz
        )
        var console = try SocketPair()
        var qmp = try SocketPair()
        var control = try SocketPair()
        var errors = try SocketPair()
        let null = try Descriptor.null()
        let process = try await ChildProcess.spawn(
            resources.qemu,
            arguments: command.arguments,
            descriptors: [
                null.number, errors.theirs, errors.theirs,
                console.theirs, qmp.theirs, control.theirs,
            ],
            on: resources.spawner
        )
        console.closeTheirs()
        qmp.closeTheirs()
        control.closeTheirs()
        errors.closeTheirs()
        do {
            guard let control = control.take(), let qmp = qmp.take(), let console = console.take(),
                let errors = errors.take()
            else { throw MicroVMError.cannotStart("A socket was used twice") }
            let group = resources.eventLoopGroup
            let started = QEMUProcess(
                process: process,
                agent: try await AgentConnection.open(socket: control, on: group),
                qmp: try await QMPConnection.open(socket: qmp, on: group),
                console: try await TailCapture.open(socket: console, limit: 16 * 1024, on: group),
                errors: try await TailCapture.open(socket: errors, limit: 4 * 1024, on: group),
                resources: resources
            )
            try await resources.blocking.runIfActive { try directory.note(processID: process.pid) }
            return started
        } catch {
            process.signal(SIGKILL)
            _ = try await process.wait(on: resources.blocking)
            throw error
        }
    }

    /// Waits for QEMU's end, reaps it and says what it was, as far as QEMU and the guest's console tell.
    func waitForEnd() async throws -> VMEnd {
        // QEMU holds the other end of this socket until it is gone.
        try await errors.waitForEnd()
        let status = try await process.wait(on: resources.blocking)
        try await console.waitForEnd()
        let words = try await console.text()
        let reason = await qmp.shutdownReason()
        if let panic = Self.line(after: "Kernel panic - not syncing: ", in: words) {
            return .guestPanic(panic)
        }
        if let failure = Self.line(after: "swiftlet-agent: FATAL ", in: words) {
            return .agentFailed(failure)
        }
        if let reason, reason.hasPrefix("guest-") {
            return .guestReset
        }
        let complaint = try await errors.text().trimmingCharacters(in: .whitespacesAndNewlines)
        return .hypervisorExited(complaint.isEmpty ? "\(status)" : "\(status): \(complaint)")
    }

    /// The last words of the guest's console.
    func consoleTail() async -> String {
        let text = (try? await console.text()) ?? ""
        return String(text.suffix(2_000))
    }

    private static func line(after marker: String, in text: String) -> String? {
        guard let found = text.range(of: marker) else { return nil }
        return String(text[found.upperBound...].prefix { !$0.isNewline }.prefix(200))
    }
}
