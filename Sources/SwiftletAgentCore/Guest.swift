// SPDX-License-Identifier: Apache-2.0

package import AgentProtocol
import CAgent
import Glibc

/// What the agent needs of the machine that it serves; a test on a host has another one.
package protocol GuestSystem: AnyObject {
    /// The programs' `cgroup.procs`, open for writing; -1 when programs have no cgroup of their own.
    var programsCgroup: Int32 { get }

    /// What the kernel has counted of the programs since the boot.
    func events() -> Cgroups.Events

    /// Gives the machine its own randomness, time, names and limits; returns which of them are in force.
    func apply(_ request: Prepare) -> Prepared.Confirmation
}

/// A language's interpreter, as an image may have it.
package struct InterpreterProgram {
    package let language: GuestLanguage
    package let command: [String]
    /// Bytes of memory below which it is started at its first call only: a small guest keeps its memory for its user.
    package let memory: Int

    package init(_ language: GuestLanguage, command: [String], memory: Int = 0) {
        self.language = language
        self.command = command
        self.memory = memory
    }

    static let known = [
        InterpreterProgram(.python, command: ["/usr/bin/python3", "/run/swiftlet/python/runner.py"]),
        InterpreterProgram(
            .javascript,
            command: ["/usr/bin/node", "--no-force-async-hooks-checks", "/run/swiftlet/javascript/runner.js"],
            memory: 300 << 20
        ),
    ]
}

/// The microVM.
final class Guest: GuestSystem {
    private let cgroups: Cgroups
    private var disk = Disk()

    init() throws(BootError) {
        cgroups = try Cgroups()
    }

    var programsCgroup: Int32 { cgroups.programs }

    func events() -> Cgroups.Events { cgroups.events() }

    func apply(_ request: Prepare) -> Prepared.Confirmation {
        var confirmed: Prepared.Confirmation = []
        if agent_reseed(request.entropy, request.entropy.count) == 0 { confirmed.insert(.randomness) }
        var time = timespec()
        time.tv_sec = time_t(request.wallClock / 1_000_000_000)
        time.tv_nsec = Int(request.wallClock % 1_000_000_000)
        if clock_settime(CLOCK_REALTIME, &time) == 0 { confirmed.insert(.wallClock) }
        if writeFile("/etc/machine-id", Array("\(request.machineID)\n".utf8)) { confirmed.insert(.machineID) }
        let hosts = "127.0.0.1 localhost \(request.hostName)\n::1 localhost ip6-localhost ip6-loopback\n"
        if sethostname(request.hostName, request.hostName.utf8.count) == 0,
            writeFile("/etc/hostname", Array("\(request.hostName)\n".utf8)), writeFile("/etc/hosts", Array(hosts.utf8))
        {
            confirmed.insert(.hostName)
        }
        if disk.limit(to: request.diskLimit) { confirmed.insert(.diskLimit) }
        return confirmed
    }
}
