// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The files of one VM, in a directory of its own that goes with it.
struct VMDirectory: Sendable {
    let path: String
    /// The directory's own name, which the VM's cgroup has too.
    let name: String

    init(parent: String, id: String) {
        path = "\(parent)/\(id)"
        name = id
    }

    /// A directory that is there already.
    init(path: String, name: String) {
        self.path = path
        self.name = name
    }

    var disk: String { "\(path)/disk.qcow2" }
    private var processFile: String { "\(path)/qemu.pid" }

    /// Makes the directory and a fresh disk. Blocks.
    func create(emptyDisk: String) throws {
        try FileManager.default.createDirectory(
            atPath: path,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        try FileManager.default.copyItem(atPath: emptyDisk, toPath: disk)
    }

    /// Notes which process uses the directory, for a server that finds it after a crash. Blocks.
    func note(processID: Int32) throws {
        let identity = ProcessIdentity(processID: processID)
        try "\(processID) \(identity?.startTime ?? 0)\n".write(toFile: processFile, atomically: false, encoding: .utf8)
    }

    /// The process is gone and the directory stays. Blocks.
    func forgetProcess() throws {
        try FileManager.default.removeItem(atPath: processFile)
    }

    /// Removes everything. Blocks.
    func remove() throws {
        guard FileManager.default.fileExists(atPath: path) else { return }
        try FileManager.default.removeItem(atPath: path)
    }

    /// Ends the processes and removes the directories that an earlier server left. Blocks.
    ///
    /// QEMU dies with its server already; this is for the server that was lost together with its kernel's notice of it.
    /// - Returns: how many directories were removed.
    static func sweep(_ parent: String) throws -> Int {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? []
        let names = entries.filter { !$0.hasSuffix(".qcow2") }
        for name in names {
            let directory = VMDirectory(parent: parent, id: name)
            if let words = try? String(contentsOfFile: directory.processFile, encoding: .utf8).split(separator: " "),
                words.count == 2, let pid = Int32(words[0]), let start = UInt64(words[1].dropLast()),
                ProcessIdentity(processID: pid)?.startTime == start
            {
                kill(pid, SIGKILL)
            }
            try directory.remove()
        }
        return names.count
    }
}

/// What tells a process from a later one with the same number.
private struct ProcessIdentity {
    /// Clock ticks from the host's boot to the process's start: field 22 of /proc/PID/stat, see proc(5).
    let startTime: UInt64

    init?(processID: Int32) {
        guard let text = try? String(contentsOfFile: "/proc/\(processID)/stat", encoding: .utf8),
            let afterName = text.lastIndex(of: ")")
        else { return nil }
        let fields = text[afterName...].split(separator: " ")
        guard fields.count > 20, let startTime = UInt64(fields[20]) else { return nil }
        self.startTime = startTime
    }
}
