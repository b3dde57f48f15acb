// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Another process of this machine. Formats: proc(5).
package struct HostProcess {
    package let pid: Int32

    package init(pid: Int32) {
        self.pid = pid
    }

    package var name: String {
        let text = try? String(contentsOfFile: "/proc/\(pid)/comm", encoding: .utf8)
        return text?.trimmingCharacters(in: .whitespacesAndNewlines) ?? ""
    }

    /// MiB of its memory that are in the machine's memory now.
    package var residentMB: Double { ProcFile("/proc/\(pid)/status").mebibytes(of: "VmRSS") }

    /// Memory that would be free without it, and its share of what it has in common with others, in MiB.
    package var memory: (own: Double, proportional: Double) {
        let file = ProcFile("/proc/\(pid)/smaps_rollup")
        let own = file.mebibytes(of: "Private_Clean") + file.mebibytes(of: "Private_Dirty")
        return (own, file.mebibytes(of: "Pss"))
    }

    /// Milliseconds of processor time so far; the kernel counts them in hundredths of a second.
    package var processorTime: Double {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
        // The name is in parentheses and may contain anything.
        let fields = text[(text.lastIndex(of: ")") ?? text.startIndex)...].split(separator: " ")
        guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else { return 0 }
        return (user + system) * 10
    }

    /// Its children, their children, and so on.
    package var descendants: [HostProcess] {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        let children = tasks.flatMap { task in
            let text = (try? String(contentsOfFile: "/proc/\(pid)/task/\(task)/children", encoding: .utf8)) ?? ""
            return text.split(separator: " ").compactMap { Int32($0) }.map(HostProcess.init)
        }
        return children + children.flatMap(\.descendants)
    }
}
