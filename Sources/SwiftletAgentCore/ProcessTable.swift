// SPDX-License-Identifier: Apache-2.0

import Glibc

/// What /proc says of the guest's processes. Format: proc(5), /proc/PID/stat.
enum ProcessTable {
    private struct Entry {
        let pid: pid_t
        let parent: pid_t
        let startTime: UInt64
    }

    /// The processes that descend from one, and began at a time or later (clock ticks since the boot).
    static func descendants(of ancestor: pid_t, startedSince time: UInt64) -> [pid_t] {
        let table = entries(of: "/proc").compactMap { pid_t($0) }.compactMap(entry)
        var found: [pid_t] = []
        var parents: Set<pid_t> = [ancestor]
        while !parents.isEmpty {
            let children = table.filter { parents.contains($0.parent) && !found.contains($0.pid) }
            // An older child's new children are not the call's, but its own.
            let recent = children.filter { $0.startTime >= time }
            found += recent.map(\.pid)
            parents = Set(recent.map(\.pid))
        }
        return found
    }

    private static func entry(_ pid: pid_t) -> Entry? {
        guard let text = readFile("/proc/\(pid)/stat"), let name = text.lastIndex(of: UInt8(ascii: ")")) else {
            return nil
        }
        let fields = text[(name + 1)...].split(separator: UInt8(ascii: " "))
        guard fields.count > 19, let parent = pid_t(String(decoding: fields[1], as: UTF8.self)),
            let start = UInt64(String(decoding: fields[19], as: UTF8.self))
        else { return nil }
        return Entry(pid: pid, parent: parent, startTime: start)
    }
}
