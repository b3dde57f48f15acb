// SPDX-License-Identifier: Apache-2.0

import CProcess
import Foundation
import Glibc
package import Logging
import NIOCore
package import NIOPosix

/// Tries to get out of the jail: a QEMU is started as any VM's is, and told over QMP to do what one taken over by its guest would.
package struct JailProbe: Sendable {
    /// One way out, and what came of it.
    package struct Attempt: Equatable, Sendable {
        package let name: String
        package let isBlocked: Bool
        /// QEMU's words, or what was possible.
        package let words: String
    }

    private let configuration: MicroVMEngine.Configuration
    private let logger: Logger

    package init(configuration: MicroVMEngine.Configuration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
    }

    /// Makes all attempts.
    ///
    /// - Throws: `MicroVMError.cannotStart` when there is no jail to be tried.
    package func attempts(threads: NIOThreadPool) async throws -> [Attempt] {
        var configuration = configuration
        configuration.directory += "-jail-probe"
        let directory = configuration.directory
        let resources = try await EngineBootstrap(configuration: configuration, threads: threads, logger: logger)
            .resources()
        defer {
            // A later probe clears what cannot be removed now.
            try? FileManager.default.removeItem(atPath: directory)
            resources.cgroups?.remove()
        }
        let template = try bait(in: directory)
        let memory = try SealedMemory.make(size: 1 << 20)
        try memory.seal()
        let launch = QEMULaunch(
            shape: VMShape(memoryMB: 128, vcpuCount: 1),
            start: .boot,
            directory: VMDirectory(parent: directory, id: "machine-probe"),
            memory: memory,
            template: template
        )
        let isJailed = resources.jail != .none
        let image = isJailed ? "/image" : resources.imageDirectory
        var attempts = try await withMachine(launch, resources: resources) { machine in
            var attempts: [Attempt] = []
            // Were QEMU dead, or its socket, every attempt would fail.
            try await Self.control(machine, image: image, id: "c1")
            for way in Self.ways(jailed: isJailed, template: template) {
                attempts.append(try await Self.attempt(way, on: machine))
            }
            try await Self.control(machine, image: image, id: "c2")
            return attempts + [Self.makeNamespace(machine)]
        }
        // Each of these is the end of its QEMU.
        attempts.append(
            try await withMachine(launch, resources: resources) { machine in
                let listener = try Listener()
                try await Self.control(machine, image: image, id: "c3")
                return try await Self.attempt(Self.connecting(to: listener.port), on: machine)
            }
        )
        attempts.append(
            try await withMachine(launch, resources: resources) { machine in
                try await Self.control(machine, image: image, id: "c4")
                return try await Self.execute(on: machine, directory: directory)
            }
        )
        return attempts
    }

    /// A QEMU for some attempts.
    private func withMachine<Result: Sendable>(
        _ launch: QEMULaunch,
        resources: EngineContext,
        _ body: @Sendable (QEMUMachine) async throws -> Result
    ) async throws -> Result {
        let machine = try await QEMUMachine.start(launch, resources: resources, logger: logger)
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await machine.run() }
            let result = try await body(machine)
            machine.kill(.killed(reason: "The probe is over"))
            _ = try await machine.waitForEnd()
            return result
        }
    }

    /// A template that nobody will miss.
    private func bait(in directory: String) throws -> Template {
        let path = "\(directory)/template"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        for name in ["memory", "state", "disk.qcow2"] {
            try Data(count: 4_096).write(to: URL(filePath: "\(path)/\(name)"))
        }
        let identity = TemplateIdentity(
            image: configuration.image.id,
            imageDigests: [:],
            initramfs: "",
            shape: VMShape(memoryMB: 128, vcpuCount: 1),
            accelerator: configuration.accelerator,
            qemu: "",
            processor: "",
            arguments: []
        )
        let manifest = TemplateManifest(
            identity: identity,
            createdAt: Date(),
            tscKHz: 0,
            memorySize: 0,
            stateDigest: "",
            diskDigest: ""
        )
        return Template(directory: path, manifest: manifest)
    }

    // MARK: Ways out

    private struct Way {
        var name: String
        var command: String
        var arguments: String
    }

    private static func ways(jailed: Bool, template: Template) -> [Way] {
        let directory = jailed ? "/template" : template.directory
        let files = ["memory", "state", "disk.qcow2"].map { name in
            open("write the template's \(name)", "\(directory)/\(name)", id: "w-\(name.prefix(4))", readOnly: false)
        }
        let memory = """
            {"qom-type":"memory-backend-file","id":"m","size":1048576,"share":true,\
            "mem-path":"/proc/self/fd/\(QEMUCommand.Descriptor.memory.rawValue)"}
            """
        return files + [
            Way(name: "write the shared memory", command: "object-add", arguments: memory),
            open("see the server's process", "/proc/\(getpid())/status", id: "p", readOnly: true),
            open("read the host's files", "/etc/passwd", id: "f", readOnly: true),
            open("change the host's kernel settings", "/proc/sys/kernel/core_pattern", id: "k", readOnly: false),
        ]
    }

    private static func connecting(to port: Int) -> Way {
        let socket = """
            {"id":"s","backend":{"type":"socket","data":{"server":false,\
            "addr":{"type":"inet","data":{"host":"127.0.0.1","port":"\(port)"}}}}}
            """
        return Way(name: "connect to the host", command: "chardev-add", arguments: socket)
    }

    private static func open(_ name: String, _ path: String, id: String, readOnly: Bool) -> Way {
        let arguments = """
            {"driver":"file","node-name":"\(id)","filename":"\(path)","read-only":\(readOnly),"locking":"off"}
            """
        return Way(name: name, command: "blockdev-add", arguments: arguments)
    }

    private static func attempt(_ way: Way, on machine: QEMUMachine) async throws -> Attempt {
        machine.locate()
        do {
            try await machine.control(way.command, arguments: way.arguments)
            return Attempt(name: way.name, isBlocked: false, words: "it was possible")
        } catch {
            if let attempt = refused(way.name, error) { return attempt }
            var reason = "\(error)"
            if reason == QMPError.gone.description {
                let end = try await machine.waitForEnd()
                if case .forbiddenSystemCall = end {
                    return Attempt(name: way.name, isBlocked: true, words: "\(end)")
                }
                reason = "\(end)"
            }
            // Another failure proves nothing.
            return Attempt(name: way.name, isBlocked: false, words: "it failed in another way: \(reason)")
        }
    }

    /// The attempt that the host's kernel has refused; nil if the error is another.
    private static func refused(_ name: String, _ error: any Error) -> Attempt? {
        let words = "\(error)"
        return refusals.contains { words.contains($0) } ? Attempt(name: name, isBlocked: true, words: words) : nil
    }

    /// What the host's kernel says of things that a jail forbids or hides.
    private static let refusals = [
        "Read-only file system", "Permission denied", "Operation not permitted", "No such file or directory",
        "Network is unreachable", "Connection refused",
    ]

    /// Something that QEMU may do.
    private static func control(_ machine: QEMUMachine, image: String, id: String) async throws {
        let way = open("control", "\(image)/rootfs.ext4", id: id, readOnly: true)
        do {
            try await machine.control(way.command, arguments: way.arguments)
        } catch {
            throw MicroVMError.cannotStart("The probe's QEMU does not do what it may: \(error)")
        }
    }

    /// A namespace of its own would give it powers over parts of the kernel that have had many holes.
    private static func makeNamespace(_ machine: QEMUMachine) -> Attempt {
        let name = "make a user namespace"
        // QEMU is the jail's child, or our own where there is no jail.
        guard let qemu = machine.locate() else {
            return Attempt(name: name, isBlocked: false, words: "QEMU is gone")
        }
        let failure = cprocess_try_user_namespace(qemu)
        guard failure != 0 else { return Attempt(name: name, isBlocked: false, words: "it was possible") }
        // The limit on namespaces is reached.
        return Attempt(
            name: name,
            isBlocked: failure == ENOSPC,
            words: String(cString: strerror(failure))
        )
    }

    /// Executing a program: QEMU starts a shell to migrate through. Its system call filter ends it for that.
    private static func execute(on machine: QEMUMachine, directory: String) async throws -> Attempt {
        let name = "execute a program"
        let mark = "\(directory)/executed"
        do {
            try await machine.control("migrate", arguments: "{\"uri\":\"exec:cat >/dev/null; echo >\(mark)\"}")
        } catch {
            // QEMU 10 is told that it may not fork, and lives on. QEMU 7.2 is killed before it can answer.
            if let attempt = refused(name, error) { return attempt }
            let end = try await machine.waitForEnd()
            guard case .forbiddenSystemCall = end else {
                return Attempt(name: name, isBlocked: false, words: "it failed in another way: \(error): \(end)")
            }
            return Attempt(name: name, isBlocked: true, words: "\(end)")
        }
        // A shell that was started gets a moment to show it.
        for _ in 0..<20 where !FileManager.default.fileExists(atPath: mark) && machine.end == nil {
            try await Task.sleep(for: .milliseconds(50))
        }
        if let end = machine.end { return Attempt(name: name, isBlocked: true, words: "\(end)") }
        return Attempt(name: name, isBlocked: false, words: "a shell was started")
    }
}

/// A socket that listens on loopback, for somebody who should not reach it.
private struct Listener: ~Copyable {
    let port: Int
    private let descriptor: Int32

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 1) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        port = Int(UInt16(bigEndian: address.sin_port))
        guard result else {
            throw MicroVMError.cannotStart("No socket on loopback: \(String(cString: strerror(errno)))")
        }
    }

    deinit {
        close(descriptor)
    }
}
