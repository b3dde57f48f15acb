// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Glibc

/// `python3 -c pass` on this machine: the unit of the budgets, as its time moves with the machine's speed.
struct HostPython {
    private(set) var times: [Double] = []

    var samples: Samples { Samples("python3 -c pass on the host (py)", times) }

    /// Runs it so many times, one after the other, and adds their milliseconds.
    ///
    /// Blocks its thread: nothing else of this program runs while the host is measured.
    mutating func measure(_ count: Int) throws {
        for _ in 0..<count {
            let started = ContinuousClock.now
            try Self.run()
            times.append((ContinuousClock.now - started) / .milliseconds(1))
        }
    }

    private static func run() throws {
        let words = ["python3", "-c", "pass"].map { (word: String) in strdup(word) }
        defer { words.forEach { free($0) } }
        var pid: pid_t = 0
        let failure = posix_spawnp(&pid, "python3", nil, nil, words + [nil], environ)
        guard failure == 0 else {
            throw ValidationError(
                "python3 cannot be started (\(String(cString: strerror(failure)))); install it: apt install python3"
            )
        }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        guard status == 0 else { throw ValidationError("python3 -c pass failed on this machine (status \(status))") }
    }
}
