// SPDX-License-Identifier: Apache-2.0

import Glibc

/// The guest's two cgroups: the agent, which programs must not starve, and the programs, which have limits.
struct Cgroups {
    private static let root = "/sys/fs/cgroup"

    /// The programs' `cgroup.procs`, open for writing.
    let programs: Int32
    private let memoryEvents: Int32
    private let processEvents: Int32

    /// What the programs' cgroup has counted since the boot.
    struct Events: Equatable {
        var outOfMemoryKills = 0
        var refusedForks = 0
    }

    /// Makes the cgroups. Formats: the kernel's "Control Group v2" document.
    init() throws(BootError) {
        let root = Cgroups.root
        mkdir("\(root)/agent", 0o755)
        mkdir("\(root)/programs", 0o755)
        Cgroups.set(path: "\(root)/agent/cgroup.procs", to: "1")
        Cgroups.set(path: "\(root)/cgroup.subtree_control", to: "+memory +pids +cpu")
        let memory = Cgroups.totalMemory()
        let reserve = max(48 << 20, memory / 16)
        Cgroups.set(path: "\(root)/agent/memory.min", to: "\(24 << 20)")
        Cgroups.setAgentWeight(10_000)
        Cgroups.set(path: "\(root)/programs/memory.max", to: "\(max(memory - reserve, memory / 2))")
        // Each thread costs the kernel some 20 KiB: the limit must bite before the memory does.
        Cgroups.set(path: "\(root)/programs/pids.max", to: "\(min(4096, max(128, memory / (256 << 10))))")
        programs = open("\(root)/programs/cgroup.procs", O_WRONLY | O_CLOEXEC)
        guard programs >= 0 else { throw BootError("\(root)/programs", errno: errno) }
        memoryEvents = open("\(root)/programs/memory.events", O_RDONLY | O_CLOEXEC)
        processEvents = open("\(root)/programs/pids.events", O_RDONLY | O_CLOEXEC)
    }

    /// How much of a busy processor the agent gets; programs have 100 together.
    static func setAgentWeight(_ weight: Int) {
        set(path: "\(root)/agent/cpu.weight", to: "\(weight)")
    }

    func events() -> Events {
        Events(
            outOfMemoryKills: Cgroups.number(behind: "oom_kill ", in: memoryEvents),
            refusedForks: Cgroups.number(behind: "max ", in: processEvents)
        )
    }

    /// Bytes of memory that the kernel manages.
    static func totalMemory() -> Int {
        sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
    }

    /// Writes a control file; a kernel without it is worth a line on the console and no more.
    static func set(path: String, to value: String) {
        if !writeFile(path, Array(value.utf8)) { log("\(path) = \(value): \(String(cString: strerror(errno)))") }
    }

    /// The number in the line of a control file that begins with a key; 0 when there is none.
    private static func number(behind key: String, in descriptor: Int32) -> Int {
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        guard count > 0 else { return 0 }
        let prefix = Array(key.utf8)
        for line in bytes[..<count].split(separator: 10) where line.starts(with: prefix) {
            return Int(String(decoding: line.dropFirst(prefix.count), as: UTF8.self)) ?? 0
        }
        return 0
    }
}
