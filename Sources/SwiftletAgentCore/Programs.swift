// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// How a program ended, from `wait4`.
struct ProgramEnd {
    /// The exit code, or nil when a signal ended it.
    let code: Int32?
    let signal: Int32
    /// Nanoseconds of processor time, user and system, with the children that it waited for.
    let processorTime: UInt64
}

/// Starts programs and reaps every process that ends in the guest, their orphans included.
final class Programs {
    /// Every program's environment; later entries win.
    var environment: [(name: String, value: String)] = [
        ("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root"), ("SHELL", "/bin/bash"), ("LANG", "C.UTF-8"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("TERM", "dumb"),
        ("MPLBACKEND", "Agg"),
    ]

    private let cgroup: Int32
    let directory: String
    private var endings: [pid_t: (ProgramEnd) -> Void] = [:]

    /// Reaps every child of this process from now on; the process must have no other code that waits for children.
    ///
    /// - Parameters:
    ///   - cgroup: the programs' `cgroup.procs`, open for writing; -1 for none.
    ///   - directory: where programs start.
    init(cgroup: Int32, directory: String = "/app", loop: EventLoop) throws(BootError) {
        self.cgroup = cgroup
        self.directory = directory
        let signals = agent_child_signals()
        guard signals >= 0 else { throw BootError("signalfd", errno: errno) }
        loop.watch(signals, for: EventLoop.readable) { [unowned self] _ in
            var record = [UInt8](repeating: 0, count: 128)
            while read(signals, &record, record.count) > 0 {}
            reap()
        }
    }

    /// Starts a program in a session of its own.
    ///
    /// - Parameters:
    ///   - directory: where it starts, if not in the programs' directory.
    ///   - onEnd: called once, from the event loop, when it was reaped.
    /// - Returns: its process id, or nil with the reason on the console.
    func start(
        _ command: [String],
        in directory: String? = nil,
        descriptors: [Int32],
        onEnd: @escaping (ProgramEnd) -> Void
    ) -> pid_t? {
        start(command.map { Array($0.utf8) }, in: directory, descriptors: descriptors, onEnd: onEnd)
    }

    /// The same with words that need not be text.
    func start(
        _ command: [[UInt8]],
        in otherDirectory: String? = nil,
        descriptors: [Int32],
        onEnd: @escaping (ProgramEnd) -> Void
    ) -> pid_t? {
        let variables = environment.map { Array("\($0.name)=\($0.value)".utf8) }
        // User code may have removed it; a call must not fail for that.
        mkdir(directory, 0o755)
        var pid: pid_t = 0
        let failure = withCStrings(command) { argv in
            withCStrings(variables) { envp in
                (otherDirectory ?? directory).withCString { directory in
                    descriptors.withUnsafeBufferPointer { descriptors in
                        var program = agent_program(
                            path: argv[0],
                            argv: argv,
                            envp: envp,
                            directory: directory,
                            descriptors: descriptors.baseAddress,
                            descriptor_count: Int32(descriptors.count),
                            cgroup: cgroup
                        )
                        return agent_spawn(&program, &pid)
                    }
                }
            }
        }
        guard failure == 0 else {
            log(
                "\(String(decoding: command[0], as: UTF8.self)) cannot be started: \(String(cString: strerror(failure)))"
            )
            return nil
        }
        endings[pid] = onEnd
        return pid
    }

    private func reap() {
        var status: Int32 = 0
        var usage = rusage()
        while case let pid = wait4(-1, &status, WNOHANG, &usage), pid > 0 {
            let signal = status & 0x7f
            let end = ProgramEnd(
                code: signal == 0 ? (status >> 8) & 0xff : nil,
                signal: signal,
                processorTime: nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime)
            )
            endings.removeValue(forKey: pid)?(end)
        }
    }

    private func nanoseconds(_ time: timeval) -> UInt64 {
        UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_usec) * 1_000
    }

    private func withCStrings<Result>(
        _ strings: [[UInt8]],
        _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        let pointers =
            strings.map { text in
                (text + [0]).withUnsafeBytes { strdup($0.bindMemory(to: CChar.self).baseAddress.unsafelyUnwrapped) }
            } + [nil]
        defer { pointers.forEach { free($0) } }
        return pointers.withUnsafeBufferPointer { buffer in
            // The array ends with nil, so that it is never empty.
            withExtendedLifetime(pointers) { body(buffer.baseAddress.unsafelyUnwrapped) }
        }
    }
}
