// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// Threads for calls that may block on a disk: the event loop never does.
final class Workers {
    /// Two, so that one that hangs in a file system of the guest's own does not hold up everything.
    private static let count: Int32 = 2

    private class Job {
        func work() {}
        func finish() {}
    }

    private final class JobOf<Result: Sendable>: Job {
        private let body: @Sendable () -> Result
        private let then: (Result) -> Void
        private var result: Result?

        init(_ body: @escaping @Sendable () -> Result, then: @escaping (Result) -> Void) {
            self.body = body
            self.then = then
        }

        override func work() { result = body() }

        override func finish() {
            if let result { then(result) }
        }
    }

    private let loop: EventLoop
    private var jobs: Int32 = -1
    private var done: Int32 = -1

    init(loop: EventLoop) {
        self.loop = loop
    }

    /// Runs a body on one of the threads, and then calls back on the event loop. A job and its callback never run at once: the pipes
    /// between the threads hand it over.
    func run<Result: Sendable>(_ body: @escaping @Sendable () -> Result, then: @escaping (Result) -> Void) {
        start()
        var pointer: UnsafeMutableRawPointer? = Unmanaged<Job>.passRetained(JobOf(body, then: then)).toOpaque()
        // The host opens few streams, and each has one job at a time: the pipe has room.
        if write(jobs, &pointer, MemoryLayout.size(ofValue: pointer)) < 0 { die("The workers are gone") }
    }

    /// The threads are started late: most guests never move a file.
    private func start() {
        guard jobs < 0 else { return }
        let failure = agent_start_workers(
            Workers.count,
            { pointer in
                guard let pointer else { return }
                Unmanaged<Job>.fromOpaque(pointer).takeUnretainedValue().work()
            },
            &jobs,
            &done
        )
        guard failure == 0 else { die("No threads: \(String(cString: strerror(failure)))") }
        loop.watch(done, for: EventLoop.readable) { [unowned self] _ in collect() }
        // The agent's cgroup goes before all programs for the event loop's sake, which a realtime priority serves as well. What the
        // workers do is not worth more than what a program does.
        if sched_getscheduler(0) == SCHED_FIFO | Workers.resetOnFork { Cgroups.setAgentWeight(50) }
    }

    /// `SCHED_RESET_ON_FORK`, as `sched_getscheduler` tells it.
    private static let resetOnFork: Int32 = 0x4000_0000

    private func collect() {
        var pointer: UnsafeMutableRawPointer?
        while read(done, &pointer, MemoryLayout.size(ofValue: pointer)) == MemoryLayout.size(ofValue: pointer) {
            guard let finished = pointer else { continue }
            Unmanaged<Job>.fromOpaque(finished).takeRetainedValue().finish()
        }
    }
}
