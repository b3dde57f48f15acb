// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// What keeps the guest from coming up.
struct BootError: Error, CustomStringConvertible {
    let description: String

    init(_ what: String, errno number: Int32) {
        description = "\(what): \(String(cString: strerror(number)))"
    }

    init(_ description: String) {
        self.description = description
    }
}

/// The way from the initramfs to a root file system with everything mounted.
enum Boot {
    private static let newRoot = "/newroot"

    static func run() throws(BootError) {
        try mount("sysfs", on: "/sys", type: "sysfs", flags: MS_NOSUID | MS_NODEV | MS_NOEXEC)
        try mount("devtmpfs", on: "/dev", type: "devtmpfs", flags: MS_NOSUID, options: "mode=0755")
        try loadModules()
        try wait(for: "/dev/vda")
        try mount("/dev/vda", on: newRoot, type: "ext4", flags: MS_NOATIME)
        for directory in ["/proc", "/sys", "/dev", "/run"] { makeDirectory(newRoot + directory) }
        try mount(
            "tmpfs",
            on: newRoot + "/run",
            type: "tmpfs",
            flags: MS_NOSUID | MS_NODEV,
            options: "mode=0755,size=25%"
        )
        // The interpreters' programs travel with the agent, not with the image.
        for name in ["python", "javascript"] {
            try copyDirectory("/swiftlet/\(name)", to: newRoot + "/run/swiftlet/\(name)")
        }
        removeInitramfs()
        for directory in ["/proc", "/sys", "/dev"] {
            try mount(directory, on: newRoot + directory, type: nil, flags: MS_MOVE)
        }
        try check(chdir(newRoot), "chdir \(newRoot)")
        try mount(".", on: "/", type: nil, flags: MS_MOVE)
        try check(chroot("."), "chroot")
        try check(chdir("/"), "chdir /")
        try mountTheRest()
        Cgroups.set(path: "/proc/self/oom_score_adj", to: "-1000")
        umask(0o022)
        signal(SIGPIPE, SIG_IGN)
        // Each background child that keeps its pipes takes two.
        try check(agent_raise_descriptor_limit(), "The limit on descriptors")
        try check(agent_loopback_up(), "The loopback interface")
        if agent_become_realtime() != 0 { log("No realtime priority; a busy guest may answer late") }
    }

    /// Opens the virtio port with this name; waits for it, as it appears a moment after its driver.
    static func openPort(named name: String) throws(BootError) -> Int32 {
        for _ in 0..<2_000 {
            for port in entries(of: "/sys/class/virtio-ports") {
                guard let text = readFile("/sys/class/virtio-ports/\(port)/name"),
                    String(decoding: text.prefix { $0 != 10 }, as: UTF8.self) == name
                else { continue }
                let descriptor = open("/dev/\(port)", O_RDWR | O_NONBLOCK | O_CLOEXEC)
                if descriptor >= 0 { return descriptor }
            }
            usleep(5_000)
        }
        throw BootError("No virtio port named \(name)")
    }

    private static func loadModules() throws(BootError) {
        guard let list = readFile("/swiftlet/modules/load") else {
            throw BootError("/swiftlet/modules/load is missing")
        }
        for name in list.split(separator: 10) {
            let file = "/swiftlet/modules/" + String(decoding: name, as: UTF8.self)
            let failure = agent_load_module(file)
            if failure != 0 { throw BootError(file, errno: failure) }
        }
    }

    private static func mountTheRest() throws(BootError) {
        for directory in ["/dev/pts", "/dev/shm", "/sys/fs/cgroup", "/app", "/tmp", "/root"] {
            makeDirectory(directory)
        }
        chmod("/tmp", 0o1777)
        let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC
        try mount(
            "devpts",
            on: "/dev/pts",
            type: "devpts",
            flags: MS_NOSUID | MS_NOEXEC,
            options: "mode=0620,ptmxmode=0666"
        )
        try mount("tmpfs", on: "/dev/shm", type: "tmpfs", flags: MS_NOSUID | MS_NODEV, options: "mode=1777")
        try mount("cgroup2", on: "/sys/fs/cgroup", type: "cgroup2", flags: quiet)
        // What each clone has of its own lies in memory: written there it costs a fifth.
        for name in ["machine-id", "hostname", "hosts"] {
            let file = "/run/swiftlet/\(name)"
            writeFile("/etc/\(name)", [])
            guard writeFile(file, []) else { throw BootError(file, errno: errno) }
            try mount(file, on: "/etc/\(name)", type: nil, flags: MS_BIND)
        }
        for (name, target) in [
            ("fd", "self/fd"), ("stdin", "self/fd/0"), ("stdout", "self/fd/1"), ("stderr", "self/fd/2"),
        ] {
            symlink("/proc/\(target)", "/dev/\(name)")
        }
    }

    private static func removeInitramfs() {
        for directory in ["/swiftlet/python", "/swiftlet/javascript", "/swiftlet/modules"] {
            for name in entries(of: directory) { unlink("\(directory)/\(name)") }
        }
        unlink("/init")
    }

    private static func copyDirectory(_ source: String, to target: String) throws(BootError) {
        var path = ""
        for part in target.split(separator: "/") {
            path += "/" + part
            makeDirectory(path)
        }
        for name in entries(of: source) {
            guard let bytes = readFile("\(source)/\(name)") else { throw BootError("\(source)/\(name) cannot be read") }
            guard writeFile("\(target)/\(name)", bytes) else { throw BootError("\(target)/\(name)", errno: errno) }
        }
    }

    private static func wait(for path: String) throws(BootError) {
        for _ in 0..<2_000 {
            if access(path, F_OK) == 0 { return }
            usleep(5_000)
        }
        throw BootError("\(path) does not appear")
    }

    private static func mount(
        _ source: String,
        on target: String,
        type: String?,
        flags: Int,
        options: String? = nil
    ) throws(BootError) {
        makeDirectory(target)
        let result =
            options.map { Glibc.mount(source, target, type, UInt(flags), $0) }
            ?? Glibc.mount(source, target, type, UInt(flags), nil)
        try check(result, "mount \(target)")
    }

    private static func check(_ result: Int32, _ what: String) throws(BootError) {
        if result != 0 { throw BootError(what, errno: result > 0 ? result : errno) }
    }

    private static func makeDirectory(_ path: String) {
        mkdir(path, 0o755)
    }
}
