// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOPosix
import SwiftletVM

/// Proves the jail: starts a QEMU in it and tries to get out.
struct JailCheck {
    let settings: Settings

    func findings() async -> [Finding] {
        guard !settings.insecureNoJail else {
            let user = geteuid() == 0 ? "root" : "this user"
            let words = "switched off by insecureNoJail: a guest that breaks out of QEMU is \(user) on this host"
            return [Finding(name: "Jail", state: .warning, words: words)]
        }
        do {
            try settings.data.create()
            let configuration = try EngineFactory.configuration(settings)
            let probe = JailProbe(configuration: configuration, logger: Logger(label: "doctor"))
            let attempts = try await probe.attempts(threads: .singleton)
            return [summary(attempts), cgroups(configuration)] + attempts.map(finding)
        } catch {
            return [Finding(name: "Jail", state: .problem, words: "\(error)", remedy: "apt-get install bubblewrap")]
        }
    }

    private func summary(_ attempts: [JailProbe.Attempt]) -> Finding {
        let open = attempts.filter { !$0.isBlocked }
        guard open.isEmpty else {
            let words =
                "\(open.count) of \(attempts.count) ways out are open: \(open.map(\.name).joined(separator: ", "))"
            return Finding(name: "Jail", state: .problem, words: words)
        }
        return Finding(
            name: "Jail",
            state: .good,
            words: "bubblewrap; \(attempts.count) ways out were tried, none is open"
        )
    }

    private func finding(_ attempt: JailProbe.Attempt) -> Finding {
        let words = attempt.words.split(whereSeparator: \.isNewline).joined(separator: " ")
        return Finding(name: "Jail: \(attempt.name)", state: attempt.isBlocked ? .good : .problem, words: words)
    }

    private func cgroups(_ configuration: MicroVMEngine.Configuration) -> Finding {
        let found = HostCgroups(owner: configuration.directory + "-doctor")
        defer { found.remove() }
        let missing = ["memory", "cpu", "pids"].filter { !found.controllers.contains($0) }
        guard missing.isEmpty else {
            let words = "this host does not let the server limit \(missing.joined(separator: ", ")) of a VM's QEMU"
            return Finding(
                name: "Cgroups",
                state: .warning,
                words: words,
                remedy: "run the server as root, or delegate a cgroup"
            )
        }
        return Finding(
            name: "Cgroups",
            state: .good,
            words: "memory, processors and processes of each VM's QEMU are limited"
        )
    }
}
