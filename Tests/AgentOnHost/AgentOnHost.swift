// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgentOnHost
import Glibc
import SwiftletAgentCore

/// The agent outside of a guest, for tests. It is a process of its own, because it reaps every child of its process.
///
/// Arguments: the directory in which programs start; milliseconds between the steps that end an interpreter's call; then the command
/// line of the Python interpreter, if there is to be one. Standard input is the control port.
@main
enum AgentOnHost {
    static func main() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        guard arguments.count >= 2, let interruptDelay = UInt64(arguments[1]) else { exit(2) }
        guard agent_on_host_supervise(0) == 0 else { exit(2) }
        let python = Array(arguments.dropFirst(2))
        let interpreters = python.isEmpty ? [] : [InterpreterProgram(.python, command: python)]
        signal(SIGPIPE, SIG_IGN)
        do throws(BootError) {
            let port = fcntl(0, F_DUPFD_CLOEXEC, 100)
            guard port >= 0 else { exit(2) }
            _ = fcntl(port, F_SETFL, O_NONBLOCK)
            let agent = try Agent(
                port: port,
                guest: Host(),
                interpreters: interpreters,
                directory: arguments[0],
                interruptDelay: interruptDelay
            )
            agent.run()
        } catch {
            let line = Array("\(error.description)\n".utf8)
            _ = write(2, line, line.count)
            exit(2)
        }
    }
}

/// A machine whose clock and names stay as they are.
private final class Host: GuestSystem {
    let programsCgroup: Int32 = -1

    func events() -> Cgroups.Events { Cgroups.Events() }

    /// Confirms everything, except for entropy that is all zeros: that stands for a machine that could not be prepared.
    func apply(_ request: Prepare) -> Prepared.Confirmation {
        request.entropy.allSatisfy { $0 == 0 }
            ? .randomness : [.randomness, .wallClock, .machineID, .hostName, .diskLimit]
    }
}
