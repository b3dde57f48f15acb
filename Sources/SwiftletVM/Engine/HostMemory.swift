// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc

/// The memory of this machine, in MiB.
package enum HostMemory {
    /// What the server may use: the machine's, or less in a container.
    package static var total: Int {
        let physical = Int(ProcessInfo.processInfo.physicalMemory)
        return min(physical, HostCgroups.ownMemoryLimit ?? physical) >> 20
    }

    /// What programs can still get without swapping. Format: proc(5), /proc/meminfo.
    ///
    /// - Throws: `MicroVMError.cannotStart` when the kernel does not say.
    static func available() throws -> Int {
        let text = (try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        guard let field = line?.split(separator: " ").dropFirst().first, let kibibytes = Int(field) else {
            throw MicroVMError.cannotStart("/proc/meminfo has no MemAvailable")
        }
        return kibibytes >> 10
    }

    /// How readily the kernel kills this process when memory is short, -1000..1000. Format: proc(5), oom_score_adj.
    static var ownOOMScoreAdjustment: Int {
        let text = (try? String(contentsOfFile: "/proc/self/oom_score_adj", encoding: .utf8)) ?? ""
        return Int(text.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
    }

    /// What a process holds that is not a file's, nor shared memory's; nil when it has ended. Format: proc(5), /proc/PID/statm.
    static func held(by pid: pid_t) -> Int? {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8) else { return nil }
        let pages = text.split(separator: " ").compactMap { Int($0) }
        guard pages.count > 2 else { return nil }
        return ((pages[1] - pages[2]) * Int(getpagesize())) >> 20
    }
}
