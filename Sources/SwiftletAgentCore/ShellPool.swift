// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// A bash that waits for its script.
final class Shell {
    let pid: pid_t
    let stdout: Int32
    let stderr: Int32
    private let gate: Int32
    private let script: Int32
    fileprivate var end: ProgramEnd?
    /// Called once when the shell has ended.
    var onEnd: ((ProgramEnd) -> Void)?

    fileprivate init(pid: pid_t, stdout: Int32, stderr: Int32, gate: Int32, script: Int32) {
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.gate = gate
        self.script = script
    }

    /// Whether it has ended, even if it is not reaped yet. User code can kill every process of the guest.
    fileprivate var hasEnded: Bool {
        var info = siginfo_t()
        return end != nil
            || (waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_signo == SIGCHLD)
    }

    /// Lets the shell run a script; false when the guest has no memory for it, or the shell is gone. Closes the descriptors that carry the script.
    fileprivate func run(_ source: [UInt8]) -> Bool {
        defer {
            close(script)
            close(gate)
        }
        // Written at a position, so that the offset that the shell shares stays at the start.
        var done = 0
        while done < source.count {
            let count = source.withUnsafeBytes {
                pwrite(script, $0.baseAddress?.advanced(by: done), $0.count - done, off_t(done))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            done += count
        }
        return write(gate, "\n", 1) == 1
    }

    /// Closes all descriptors of a shell that never ran.
    fileprivate func closeAll() {
        for descriptor in [stdout, stderr, gate, script] { close(descriptor) }
    }

    /// Kills a shell that did not take its script.
    fileprivate func killAndClose() {
        kill(-pid, SIGKILL)
        close(stdout)
        close(stderr)
    }
}

/// Shells that are started ahead of their scripts: starting a shell takes longer than most scripts run.
final class ShellPool {
    /// What a waiting shell runs: it reads one byte from descriptor 3, then the host's name and the script from a file in memory,
    /// which is descriptor 4.
    ///
    /// Neither stays open for the script. `REPLY` keeps its text: unsetting it would take a line of the script's own. The directory
    /// is entered late, as a call before may have put another in its place. A shell may wait in many clones of a template: what
    /// it took from its start is made new.
    private static func launcher(in directory: String) -> String {
        """
        IFS= read -r -n 1 -u 3 REPLY || kill -9 $$; exec 3<&-; cd \(directory); unset OLDPWD; \
        IFS= read -r -d "" -u 4 HOSTNAME; IFS= read -r -d "" -u 4 REPLY; exec 4<&-; RANDOM=$SRANDOM SECONDS=0; eval -- "$REPLY"
        """
    }

    private let target: Int
    private let programs: Programs
    private let loop: EventLoop
    private var hostName: [UInt8] = []
    private var waiting: [Shell] = []
    private var isRefilling = false

    init(target: Int, programs: Programs, loop: EventLoop) {
        self.target = target
        self.programs = programs
        self.loop = loop
    }

    /// Sets the host name of the scripts to come. Restarts the waiting shells if the environment changed after they started.
    func setIdentity(hostName: String, withNewEnvironment isNew: Bool) {
        self.hostName = Array(hostName.utf8)
        guard isNew else { return }
        let outdated = waiting
        waiting = []
        for shell in outdated {
            kill(-shell.pid, SIGKILL)
            shell.closeAll()
        }
    }

    /// Runs a script in a shell of its own; nil when none can be started.
    func run(_ source: [UInt8]) -> Shell? {
        // User code may have removed it; a call must not fail for that.
        mkdir(programs.directory, 0o755)
        let source = hostName + [0] + source
        while let shell = waiting.popLast() {
            if shell.hasEnded {
                shell.closeAll()
            } else if shell.run(source) {
                return shell
            } else {
                shell.killAndClose()
            }
        }
        guard let shell = start() else { return nil }
        if shell.run(source) { return shell }
        shell.killAndClose()
        return nil
    }

    /// Starts the missing shells a moment later, so that it does not delay what runs now.
    func refill(afterMilliseconds delay: UInt64 = 2) {
        guard !isRefilling, waiting.count < target else { return }
        isRefilling = true
        loop.schedule(milliseconds: delay) { [unowned self] in
            isRefilling = false
            guard waiting.count < target, let shell = start() else { return }
            waiting.append(shell)
            // One at a time: a call that arrives now is served in between.
            refill()
        }
    }

    private func start() -> Shell? {
        var stdout: [Int32] = [-1, -1]
        var stderr: [Int32] = [-1, -1]
        var gate: [Int32] = [-1, -1]
        let script = agent_memory_file("script")
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        let complete = agent_pipe(&stdout) == 0 && agent_pipe(&stderr) == 0 && agent_pipe(&gate) == 0
        defer {
            for descriptor in [stdout[1], stderr[1], gate[0], null] where descriptor >= 0 { close(descriptor) }
        }
        var ended: ProgramEnd?
        var shell: Shell?
        let pid =
            if complete, script >= 0, null >= 0 {
                programs.start(
                    ["/bin/bash", "-c", ShellPool.launcher(in: programs.directory), "bash"],
                    // Bash writes an error when the directory in which it starts is removed meanwhile.
                    in: "/",
                    descriptors: [null, stdout[1], stderr[1], gate[0], script]
                ) { [weak self] end in
                    ended = end
                    shell?.end = end
                    shell?.onEnd?(end)
                    shell?.onEnd = nil
                    self?.removeEnded(pid: shell?.pid)
                }
            } else {
                pid_t?.none
            }
        guard let pid else {
            for descriptor in [stdout[0], stderr[0], gate[1], script] where descriptor >= 0 { close(descriptor) }
            return nil
        }
        let started = Shell(pid: pid, stdout: stdout[0], stderr: stderr[0], gate: gate[1], script: script)
        started.end = ended
        shell = started
        return started
    }

    /// Removes a shell that ended while it waited. Starts the next one after a delay, as user code may be killing every process.
    private func removeEnded(pid: pid_t?) {
        guard let index = waiting.firstIndex(where: { $0.pid == pid }) else { return }
        waiting.remove(at: index).closeAll()
        refill(afterMilliseconds: 200)
    }
}
