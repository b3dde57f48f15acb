// SPDX-License-Identifier: Apache-2.0

import AgentClient
import CProcess
import Foundation
import Glibc
import NIOCore
import NIOPosix
import SwiftletCore
import Synchronization

/// How a QEMU is to be started.
struct QEMULaunch: Sendable {
    var shape: VMShape
    var start: QEMUCommand.Start
    var directory: VMDirectory
    /// The guest's memory; for all but a VM that boots for its session.
    var memory: SealedMemory?
    /// The template, for a clone.
    var template: Template?
    /// Where the devices' state is to be written, for a template.
    var stateOutput: Int32?
    /// The directory stays when QEMU has ended.
    var keepsFiles = false
    /// Gives way to what else runs on the host.
    var isBackground = false
    /// When the start was asked for.
    let begun = ContinuousClock.now
}

/// A QEMU that was started, with our ends of its sockets.
struct QEMUProcess: Sendable {
    let process: ChildProcess
    let agent: AgentConnection
    let qmp: QMPConnection
    private let console: TailCapture
    private let errors: TailCapture
    private let resources: EngineContext
    private let cgroup: VMCgroup?
    private let lastKnown = LastKnownProcess()

    /// Spawns QEMU, in its jail and its cgroup. When anything fails, nothing of it is left.
    static func start(_ launch: QEMULaunch, resources: EngineContext) async throws -> QEMUProcess {
        let cgroup = try await resources.blocking.runIfActive { try makeCgroup(launch, resources: resources) }
        do {
            return try await spawn(launch, cgroup: cgroup, resources: resources)
        } catch {
            try await resources.blocking.runUncancelled { cgroup?.remove() }
            throw error
        }
    }

    private static func makeCgroup(_ launch: QEMULaunch, resources: EngineContext) throws -> VMCgroup? {
        // QEMU's own needs: its code cache, its threads' stacks, buffers.
        let overhead = 256 << 20
        return try resources.cgroups?.make(
            launch.directory.name,
            limits: HostCgroups.Limits(
                // Twice the guest's: a page that a clone is the first to touch is made in the shared memory too, and its maker is
                // charged for both.
                memory: 2 * (launch.shape.memoryMB << 20) + overhead,
                processors: Double(launch.shape.vcpuCount) + 0.5,
                processes: 128
            )
        )
    }

    private static func spawn(
        _ launch: QEMULaunch,
        cgroup: VMCgroup?,
        resources: EngineContext
    ) async throws -> QEMUProcess {
        var console = try SocketPair()
        var qmp = try SocketPair()
        var control = try SocketPair()
        var errors = try SocketPair()
        let null = try Descriptor.null()
        // QEMU gets no more descriptors than it needs; where there is no state, it is another /dev/null.
        let state = try Descriptor.reading(launch.template?.state ?? "/dev/null")
        let filter = try resources.filter()
        var limits = ChildProcess.Limits()
        // Until it is known whose VM it will be, the node's quota counts. A template's memory is no file on the disk, but counts as one.
        if launch.start != .bootIntoFile { limits.fileSize = DiskQuota(bytes: resources.diskLimit).fileSize }
        limits.nice = launch.isBackground && resources.mayRenice ? 10 : 0
        limits.oomScoreAdjustment = resources.oomScoreAdjustment
        let (executable, arguments) = command(launch, resources: resources)
        let inherited = [console.theirs, qmp.theirs, control.theirs, launch.memory?.descriptor ?? null.number]
        let entries = try cgroup?.open()
        limits.cgroups = entries?.numbers ?? []
        let process = try await ChildProcess.spawn(
            executable,
            arguments: arguments,
            environment: resources.jail == .none ? resources.qemu.environment : [:],
            descriptors: [null.number, errors.theirs, errors.theirs] + inherited + [state.number, filter.number],
            limits: limits,
            on: resources.spawner
        )
        withExtendedLifetime(entries) {}
        console.closeTheirs()
        qmp.closeTheirs()
        control.closeTheirs()
        errors.closeTheirs()
        var agent: AgentConnection?
        do {
            if let output = launch.stateOutput { try qmp.send(descriptor: output, named: "state") }
            let group = resources.eventLoopGroup
            // Each socket is taken when its connection opens: what a failure leaves is closed here.
            let opened = try await AgentConnection.open(socket: try control.take(), on: group)
            agent = opened
            let started = QEMUProcess(
                process: process,
                agent: opened,
                qmp: try await QMPConnection.open(socket: try qmp.take(), on: group),
                console: try await TailCapture.open(socket: try console.take(), limit: 16 * 1024, on: group),
                errors: try await TailCapture.open(socket: try errors.take(), limit: 4 * 1024, on: group),
                resources: resources,
                cgroup: cgroup
            )
            try await resources.blocking.runIfActive { try launch.directory.note(processID: process.pid) }
            return started
        } catch {
            agent?.fail(MicroVMError.cannotStart("\(error)"))
            process.killInnermost()
            _ = try await process.wait(on: resources.blocking)
            throw error
        }
    }

    private static func command(_ launch: QEMULaunch, resources: EngineContext) -> (String, [String]) {
        let view = Jail.View(
            image: resources.imageDirectory,
            template: launch.template?.directory,
            disk: launch.directory.disk,
            usesKVM: resources.platform.accelerator == .kvm
        )
        let qemu = QEMUCommand(
            platform: resources.platform,
            shape: launch.shape,
            start: launch.start,
            files: resources.jail.files(view, kernel: resources.kernel, initramfs: resources.initramfs),
            // A template is the server's own work.
            diskRate: launch.start == .bootIntoFile ? nil : resources.diskRate
        )
        let (executable, arguments) = resources.jail.command(
            qemu: resources.qemu.executable,
            view: view,
            filter: QEMUCommand.Descriptor.filter.rawValue
        )
        return (executable, arguments + qemu.arguments)
    }

    /// Looks for QEMU's process id; nil when it is gone.
    @discardableResult
    func locate() -> pid_t? {
        let found = resources.jail == .none ? process.pid : process.children.first
        if let found { lastKnown.note(found) }
        return found
    }

    /// Holds QEMU's files to a VM's quota: its guest keeps to that by itself, as long as nobody there changes what it is kept by.
    ///
    /// - Returns: false when it could not be done, as with a QEMU that is gone.
    func limitDisk(to quota: DiskQuota) -> Bool {
        locate().map { cprocess_limit_file_size($0, quota.fileSize) == 0 } ?? false
    }

    /// MiB that QEMU and its jail hold alone; nil when they have ended. Blocks for a moment.
    var heldMemory: Int? {
        let held = ([process.pid] + process.children).compactMap(HostMemory.held)
        return held.isEmpty ? nil : held.reduce(0, +)
    }

    /// Ends the background's slower pace, where there was one.
    func becomeForeground() {
        guard resources.mayRenice else { return }
        for pid in [process.pid] + process.children { _ = cprocess_set_nice(pid, 0) }
    }

    /// Waits for QEMU's end, reaps it and says what it was, as far as QEMU and the guest's console tell.
    func waitForEnd() async throws -> VMEnd {
        // QEMU holds the other end of this socket until it is gone.
        try await errors.waitForEnd()
        let status = try await process.wait(on: resources.blocking).throughBubblewrap
        let cgroup = cgroup
        try await resources.blocking.runUncancelled { cgroup?.remove() }
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
        // Not by our own hand; a QEMU without a jail has a filter of its own, which is a part of this one.
        if status == .signaled(SIGSYS) {
            let process = lastKnown.number
            let call = try await resources.blocking.runUncancelled { process.flatMap(KernelLog().forbiddenCall) }
            return .forbiddenSystemCall(call)
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

/// The process id that a QEMU had when it was last looked at: the kernel's log knows it by that when it is gone.
private final class LastKnownProcess: Sendable {
    private let state = Mutex<pid_t?>(nil)

    var number: pid_t? { state.withLock { $0 } }

    func note(_ number: pid_t) {
        state.withLock { $0 = number }
    }
}

extension ChildProcess.Status {
    /// The end of the program inside: bubblewrap ends with 128 + n when that died of signal n. QEMU has no such exit codes.
    fileprivate var throughBubblewrap: ChildProcess.Status {
        if case .exited(let code) = self, code > 128, code < 193 { .signaled(code - 128) } else { self }
    }
}
