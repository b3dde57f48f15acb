// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// PID 1 of a guest: boots it and serves the host on the control port.
package enum AgentProcess {
    /// Boots the guest and serves the host; returns only by ending the VM.
    package static func main() {
        do throws(BootError) {
            try Boot.run()
            let guest = try Guest()
            let port = try Boot.openPort(named: "swiftlet.control")
            let agent = try Agent(port: port, guest: guest, interpreters: InterpreterProgram.known)
            agent.run()
        } catch {
            die(error.description)
        }
    }
}

/// Reports an error on the console, which the host reads, and ends the VM: nothing can be served any more.
///
/// Restarts the machine only as PID 1 of a guest: a test of the agent's parts on a host must never do that.
func die(_ message: String) -> Never {
    log("FATAL \(message)")
    if getpid() == 1 { agent_reboot() }
    exit(1)
}

/// Writes one line to the guest's console, or to standard error where the agent's parts run outside of a guest.
func log(_ message: String) {
    let line = Array("swiftlet-agent: \(message)\n".utf8)
    let console = getpid() == 1 ? open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) : -1
    _ = write(console >= 0 ? console : 2, line, line.count)
    if console >= 0 { close(console) }
}

/// Nanoseconds on the guest's monotonic clock.
package func monotonicTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
