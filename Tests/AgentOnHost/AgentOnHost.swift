// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgentOnHost
import Glibc
import SwiftletAgentCore

/// The agent without a guest, for tests: a process of its own, as it reaps all of its children.
///
/// Arguments: where programs start, then the Python interpreter's words, if there is to be one. The control port is standard input.
@main
enum AgentOnHost {
    static func main() {
        let words = Array(CommandLine.arguments.dropFirst())
        guard let directory = words.first, agent_on_host_take_orphans() == 0 else { exit(2) }
        let python = Array(words.dropFirst())
        let interpreters = python.isEmpty ? [] : [InterpreterProgram(.python, words: python)]
        signal(SIGPIPE, SIG_IGN)
        do throws(BootError) {
            let port = fcntl(0, F_DUPFD_CLOEXEC, 100)
            guard port >= 0 else { exit(2) }
            _ = fcntl(port, F_SETFL, O_NONBLOCK)
            let agent = try Agent(port: port, guest: Host(), interpreters: interpreters, directory: directory)
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

    /// Entropy of zeroes stands for a machine that cannot confirm everything.
    func adopt(_ request: Prepare) -> Prepared.Confirmation {
        request.entropy.allSatisfy { $0 == 0 }
            ? .randomness : [.randomness, .wallClock, .machineID, .hostName, .diskLimit]
    }
}
