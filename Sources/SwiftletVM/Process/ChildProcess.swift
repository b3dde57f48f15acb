// SPDX-License-Identifier: Apache-2.0

import CProcess
import Foundation
import Glibc
import NIOCore
package import NIOPosix
import SwiftletCore
import Synchronization

/// A program that this process started, and that dies with it.
///
/// Whoever starts one must call ``wait()`` exactly once; until then the process id is ours and signals reach the right process.
package final class ChildProcess: Sendable {
    /// How a process ended.
    package enum Status: Equatable, Sendable, CustomStringConvertible {
        case exited(Int32)
        case signaled(Int32)

        package var description: String {
            switch self {
            case .exited(let code): "exit code \(code)"
            case .signaled(let signal): "signal \(signal)"
            }
        }
    }

    /// What a program is held to.
    package struct Limits: Sendable {
        /// `cgroup.procs` files, open for writing, of cgroups that it enters.
        package var cgroups: [Int32] = []
        /// The largest file that it may write, in bytes; nil for no limit.
        package var fileSize: UInt64?
        /// How many descriptors it may have open; nil for the limit of this process.
        package var descriptors: UInt64?
        /// Added to its nice value.
        package var nice: Int32 = 0
        /// How readily the kernel kills it when memory is short, in proc(5)'s oom_score_adj; nil for the value of this process.
        package var oomScoreAdjustment: Int?

        package init() {}
    }

    private enum State {
        case alive
        case reaped
    }

    package let pid: Int32
    private let state = Mutex(State.alive)

    private init(pid: Int32) {
        self.pid = pid
    }

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - executable: its path.
    ///   - arguments: without the program's name.
    ///   - descriptors: what the child sees as descriptors 0, 1, 2, ...; it gets no others. The caller keeps and closes its own.
    ///   - spawner: the thread that starts it. The child is killed when that thread ends, so the pool must live as long as
    ///     this process and have one thread.
    /// - Throws: `MicroVMError.cannotStart` with the step that failed and the kernel's reason.
    package static func spawn(
        _ executable: String,
        arguments: [String],
        environment: [String: String] = [:],
        descriptors: [Int32],
        limits: Limits = Limits(),
        on spawner: NIOThreadPool
    ) async throws -> ChildProcess {
        try await spawner.runIfActive {
            let pid = try withCStrings([executable] + arguments) { argv in
                try withCStrings(environment.map { "\($0.key)=\($0.value)" }) { envp in
                    try start(executable, argv, envp, descriptors: descriptors, limits: limits)
                }
            }
            return ChildProcess(pid: pid)
        }
    }

    private static func start(
        _ executable: String,
        _ argv: [UnsafeMutablePointer<CChar>?],
        _ envp: [UnsafeMutablePointer<CChar>?],
        descriptors: [Int32],
        limits: Limits
    ) throws -> pid_t {
        var pid: pid_t = 0
        let oomScore = limits.oomScoreAdjustment.map { Array("\($0)".utf8CString) }
        let failure = executable.withCString { path in
            argv.withUnsafeBufferPointer { argv in
                envp.withUnsafeBufferPointer { envp in
                    descriptors.withUnsafeBufferPointer { descriptors in
                        limits.cgroups.withUnsafeBufferPointer { cgroups in
                            (oomScore ?? []).withUnsafeBufferPointer { oomScore in
                                var program = cprocess_program(
                                    path: path,
                                    argv: argv.baseAddress,
                                    envp: envp.baseAddress,
                                    descriptors: descriptors.baseAddress,
                                    descriptor_count: Int32(descriptors.count),
                                    cgroups: cgroups.baseAddress,
                                    cgroup_count: Int32(cgroups.count),
                                    file_size_limit: limits.fileSize ?? 0,
                                    descriptor_limit: limits.descriptors ?? 0,
                                    nice: limits.nice,
                                    oom_score_adjustment: oomScore.isEmpty ? nil : oomScore.baseAddress
                                )
                                return cprocess_spawn(&program, &pid)
                            }
                        }
                    }
                }
            }
        }
        guard failure.step == 0 else {
            throw MicroVMError.cannotStart(
                "\(executable): \(name(ofStep: failure.step)): \(String(cString: strerror(failure.error)))"
            )
        }
        return pid
    }

    private static func name(ofStep step: Int32) -> String {
        switch cprocess_step(UInt32(step)) {
        case CPROCESS_STEP_PIPE: "pipe"
        case CPROCESS_STEP_FORK: "fork"
        case CPROCESS_STEP_REPORT: "reading its start's result"
        case CPROCESS_STEP_DEATH_SIGNAL: "prctl(PR_SET_PDEATHSIG)"
        case CPROCESS_STEP_CGROUP: "entering its cgroup"
        case CPROCESS_STEP_CORE_LIMIT: "setrlimit(RLIMIT_CORE)"
        case CPROCESS_STEP_NICE: "setpriority"
        case CPROCESS_STEP_OOM_SCORE: "writing oom_score_adj"
        case CPROCESS_STEP_FILE_SIZE_LIMIT: "setrlimit(RLIMIT_FSIZE)"
        case CPROCESS_STEP_DESCRIPTOR_LIMIT: "setrlimit(RLIMIT_NOFILE)"
        case CPROCESS_STEP_DESCRIPTORS: "placing its descriptors"
        case CPROCESS_STEP_EXECUTE: "execve"
        default: "step \(step)"
        }
    }

    /// Sends a signal, unless the process was reaped.
    package func signal(_ number: Int32) {
        state.withLock { state in
            guard state == .alive else { return }
            Glibc.kill(pid, number)
        }
    }

    /// Kills its children, or itself when there are none.
    ///
    /// A jail whose program is killed reaps it and ends; one that is killed itself would leave that to the host's init.
    func killInnermost() {
        state.withLock { state in
            guard state == .alive else { return }
            if cprocess_kill_children(pid) == 0 { Glibc.kill(pid, SIGKILL) }
        }
    }

    /// Its own children, as long as it lives: a jail's program. Format: proc(5), /proc/PID/task/TID/children.
    var children: [pid_t] {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/task/\(pid)/children", encoding: .utf8)) ?? ""
        return text.split(separator: " ").compactMap { pid_t($0) }
    }

    /// Waits for the end and reaps. Blocks a thread of the pool; call it when the end is near or known.
    package func wait(on pool: NIOThreadPool) async throws -> Status {
        try await pool.runUncancelled { [self] in
            // Wait without reaping first: the id stays ours until the state says otherwise.
            var info = siginfo_t()
            while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) < 0, errno == EINTR {}
            return state.withLock { state in
                state = .reaped
                var status: Int32 = 0
                while waitpid(pid, &status, 0) < 0, errno == EINTR {}
                let signal = status & 0x7f
                return signal == 0 ? .exited((status >> 8) & 0xff) : .signaled(signal)
            }
        }
    }
}

/// Lends C strings for the time of a call, behind a null-terminated array as `execve` wants it.
private func withCStrings<Result>(
    _ strings: [String],
    _ body: ([UnsafeMutablePointer<CChar>?]) throws -> Result
) rethrows -> Result {
    let pointers = strings.map { strdup($0) }
    defer { pointers.forEach { free($0) } }
    return try body(pointers + [nil])
}
