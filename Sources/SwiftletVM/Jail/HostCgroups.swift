// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import Glibc
import SwiftletCore

/// Cgroups for the VMs of one server, where the host lets it make them.
///
/// Both versions are known: the unified hierarchy, and one hierarchy a controller. Formats: the kernel's "Control Group v2" and
/// "Control Groups version 1" documents. All calls block.
package struct HostCgroups: Sendable {
    /// What a VM may use of the host.
    struct Limits: Sendable {
        /// Bytes.
        var memory: Int
        /// Processors, with a fraction.
        var processors: Double
        var processes: Int
    }

    private struct Hierarchy: Sendable {
        /// A directory of this server alone.
        var base: String
        var controllers: [String]
        var isUnified: Bool
    }

    private static let wanted = ["memory", "cpu", "pids"]
    private let hierarchies: [Hierarchy]

    /// What is limited, for the operator: a subset of memory, cpu, pids.
    package var controllers: [String] { hierarchies.flatMap(\.controllers) }

    /// Finds what the host gives, and makes this server's part of it.
    ///
    /// - Parameter owner: what tells this server from another on the host, its directory of VMs.
    package init(owner: String) {
        let digest = SHA256.hash(data: Data(owner.utf8)).prefix(6).hexadecimal
        let name = "swiftlet-\(digest)"
        if let unified = Self.unified(name) {
            hierarchies = [unified]
        } else {
            hierarchies = Self.wanted.compactMap { Self.separate($0, name: name) }
        }
    }

    /// Removes what an earlier server left, processes included.
    func sweep() {
        for hierarchy in hierarchies {
            for name in (try? FileManager.default.contentsOfDirectory(atPath: hierarchy.base)) ?? []
            where name.hasPrefix("template-") || name.hasPrefix("machine-") {
                let path = "\(hierarchy.base)/\(name)"
                let processes = (try? String(contentsOfFile: "\(path)/cgroup.procs", encoding: .utf8)) ?? ""
                for pid in processes.split(separator: "\n").compactMap({ pid_t($0) }) { kill(pid, SIGKILL) }
                Self.remove(path)
            }
        }
    }

    /// Makes a VM's cgroup.
    func make(_ name: String, limits: Limits) throws -> VMCgroup {
        var paths: [String] = []
        for hierarchy in hierarchies {
            let path = "\(hierarchy.base)/\(name)"
            guard mkdir(path, 0o755) == 0 else {
                let reason = String(cString: strerror(errno))
                paths.forEach(Self.remove)
                throw MicroVMError.cannotStart("The cgroup \(path): \(reason)")
            }
            paths.append(path)
            for (file, value) in Self.settings(hierarchy, limits) {
                do {
                    try Self.write(value, to: "\(path)/\(file)")
                } catch {
                    paths.forEach(Self.remove)
                    throw error
                }
            }
        }
        return VMCgroup(paths: paths)
    }

    /// Removes this server's part; to be called when no VM is left.
    package func remove() {
        hierarchies.map(\.base).forEach(Self.remove)
    }

    /// The memory in bytes that this process's own cgroup may use, where that is limited: in a container, for one.
    static var ownMemoryLimit: Int? {
        let unified = memberships().first { $0.controllers.isEmpty }?.path ?? "/"
        let separate = memberships().first { $0.controllers.contains("memory") }?.path ?? "/"
        let files = mounts().flatMap { mount -> [String] in
            switch mount.type {
            case "cgroup2": ["\(mount.path)\(unified)/memory.max", "\(mount.path)/memory.max"]
            case "cgroup" where mount.options.contains("memory"):
                ["\(mount.path)\(separate)/memory.limit_in_bytes", "\(mount.path)/memory.limit_in_bytes"]
            default: []
            }
        }
        let limits = files.compactMap { try? String(contentsOfFile: $0, encoding: .utf8) }
            .compactMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        return limits.min()
    }

    // MARK: Finding

    private static func unified(_ name: String) -> Hierarchy? {
        guard let mount = mounts().first(where: { $0.type == "cgroup2" })?.path else { return nil }
        let own = memberships().first { $0.controllers.isEmpty }?.path ?? "/"
        // Beneath this process's own cgroup where that is delegated, else at the top.
        for parent in [makeRoom(in: mount + (own == "/" ? "" : own)), mount] {
            let base = "\(parent)/\(name)"
            guard mkdir(base, 0o755) == 0 || errno == EEXIST else { continue }
            // Fails where the parent has processes; then its controllers may be enabled already.
            try? write("+memory +cpu +pids", to: "\(parent)/cgroup.subtree_control")
            try? write("+memory +cpu +pids", to: "\(base)/cgroup.subtree_control")
            let enabled = (try? String(contentsOfFile: "\(base)/cgroup.subtree_control", encoding: .utf8)) ?? ""
            let controllers = enabled.split(whereSeparator: \.isWhitespace).map(String.init)
            if wanted.allSatisfy(controllers.contains) {
                return Hierarchy(base: base, controllers: wanted, isUnified: true)
            }
            rmdir(base)
        }
        return nil
    }

    /// Leaves a cgroup that this process is alone in, as a service is in the one that systemd delegates to it, for one below: the
    /// kernel gives controllers to the children of a cgroup only if it has no processes itself.
    ///
    /// - Returns: where cgroups for VMs are to be made.
    private static func makeRoom(in own: String) -> String {
        let suffix = "/server"
        // An earlier call has made it, or systemd: `DelegateSubgroup=server`.
        if own.hasSuffix(suffix) { return String(own.dropLast(suffix.count)) }
        let processes = (try? String(contentsOfFile: "\(own)/cgroup.procs", encoding: .utf8)) ?? ""
        guard processes.split(separator: "\n") == ["\(getpid())"], mkdir(own + suffix, 0o755) == 0 || errno == EEXIST
        else {
            return own
        }
        // If this fails, no controllers are found, which the operator is told.
        try? write("\(getpid())", to: "\(own)\(suffix)/cgroup.procs")
        return own
    }

    private static func separate(_ controller: String, name: String) -> Hierarchy? {
        guard let mount = mounts().first(where: { $0.type == "cgroup" && $0.options.contains(controller) })?.path else {
            return nil
        }
        let own = memberships().first { $0.controllers.contains(controller) }?.path ?? "/"
        for parent in [mount + (own == "/" ? "" : own), mount] {
            let base = "\(parent)/\(name)"
            if mkdir(base, 0o755) == 0 || errno == EEXIST, access(base, W_OK) == 0 {
                return Hierarchy(base: base, controllers: [controller], isUnified: false)
            }
        }
        return nil
    }

    /// Format: proc(5), /proc/PID/mounts.
    private static func mounts() -> [(path: String, type: String, options: [String])] {
        let text = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ").map(String.init)
            guard fields.count > 3 else { return nil }
            return (fields[1], fields[2], fields[3].split(separator: ",").map(String.init))
        }
    }

    /// Format: cgroups(7), /proc/PID/cgroup.
    private static func memberships() -> [(controllers: [String], path: String)] {
        let text = (try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
            guard fields.count == 3 else { return nil }
            return (fields[1].split(separator: ",").map(String.init), fields[2])
        }
    }

    // MARK: Files

    private static func settings(_ hierarchy: Hierarchy, _ limits: Limits) -> [(String, String)] {
        let quota = Int(limits.processors * 100_000)
        if hierarchy.isUnified {
            return [
                ("memory.max", "\(limits.memory)"), ("cpu.max", "\(quota) 100000"), ("pids.max", "\(limits.processes)"),
            ]
        }
        return hierarchy.controllers.flatMap { controller -> [(String, String)] in
            switch controller {
            case "memory": [("memory.limit_in_bytes", "\(limits.memory)")]
            case "cpu": [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "\(quota)")]
            default: [("pids.max", "\(limits.processes)")]
            }
        }
    }

    private static func write(_ value: String, to path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw MicroVMError.cannotStart("\(path): \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        guard Glibc.write(descriptor, value, value.utf8.count) == value.utf8.count else {
            throw MicroVMError.cannotStart("\(path) = \(value): \(String(cString: strerror(errno)))")
        }
    }

    /// Removes an empty cgroup; one whose last process is on its way out is waited for, for a moment.
    fileprivate static func remove(_ path: String) {
        for _ in 0..<100 where rmdir(path) != 0 && errno == EBUSY { usleep(10_000) }
    }
}

/// One VM's cgroup, in each hierarchy. Its processes enter it as they start.
struct VMCgroup: Sendable {
    fileprivate let paths: [String]

    /// `cgroup.procs` of each hierarchy, open for writing as long as the result lives.
    func open() throws -> Entries {
        let entries = Entries()
        for path in paths {
            let descriptor = Glibc.open("\(path)/cgroup.procs", O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else {
                throw MicroVMError.cannotStart("\(path)/cgroup.procs: \(String(cString: strerror(errno)))")
            }
            entries.add(descriptor)
        }
        return entries
    }

    /// Removes it, when its processes are gone. Blocks.
    func remove() {
        paths.forEach(HostCgroups.remove)
    }

    /// Open descriptors, closed together.
    final class Entries {
        private(set) var numbers: [Int32] = []

        fileprivate func add(_ number: Int32) {
            numbers.append(number)
        }

        deinit {
            numbers.forEach { close($0) }
        }
    }
}
