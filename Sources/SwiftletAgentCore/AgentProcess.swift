// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// PID 1 of a guest: boots it and serves the host on the control port.
package enum AgentProcess {
    /// Boots the guest and serves the host; returns only by ending the VM.
    package static func main() {
        do throws(BootError) {
            try Boot.run()
            let agent = try Agent(port: try Boot.openPort(named: "swiftlet.control"))
            agent.run()
        } catch {
            die(error.description)
        }
    }
}

/// Tells the host, which reads the console, and ends the VM: nothing can be served any more.
func die(_ words: String) -> Never {
    log("FATAL \(words)")
    agent_reboot()
    exit(1)
}

/// One line on the guest's console.
func log(_ words: String) {
    let line = Array("swiftlet-agent: \(words)\n".utf8)
    let console = open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
    _ = write(console >= 0 ? console : 2, line, line.count)
    if console >= 0 { close(console) }
}

/// Nanoseconds on the guest's monotonic clock.
func monotonicTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
