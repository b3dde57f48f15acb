// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
package import Logging
import NIOCore
package import NIOPosix
import SwiftletCore

/// Which accelerator this host gives, and why.
package struct AcceleratorVerdict: Codable, Equatable, Sendable {
    package var accelerator: Accelerator
    /// In words for the operator.
    package var reason: String
    /// What the verdict depends on; another value makes it stale.
    package var fingerprint: String
}

/// Finds out whether KVM really runs a guest here.
///
/// A /dev/kvm that opens, and even creates a VM, may still not run a stock kernel: on hosts that are emulated themselves guests
/// hang early. So the probe boots the image under KVM, once, with a deadline, and the verdict is kept in a file.
package struct AcceleratorProbe: Sendable {
    /// What the probe boots; its accelerator and its boot timeout are the probe's own.
    package var configuration: MicroVMEngine.Configuration
    /// The file that keeps the verdict.
    package var cache: String
    package var deadline: Duration
    package var logger: Logger

    package init(
        configuration: MicroVMEngine.Configuration,
        cache: String,
        deadline: Duration = .seconds(20),
        logger: Logger
    ) {
        self.configuration = configuration
        self.cache = cache
        self.deadline = deadline
        self.logger = logger
    }

    /// The verdict, from the file if it is still true.
    ///
    /// - Parameter fresh: boot the probe even if a verdict is known.
    package func verdict(threads: NIOThreadPool, fresh: Bool = false) async throws -> AcceleratorVerdict {
        let fingerprint = try await threads.runIfActive { Self.fingerprint(qemu: configuration.qemu) }
        if !fresh, let known = try await threads.runIfActive({ Self.load(cache) }), known.fingerprint == fingerprint {
            return known
        }
        var verdict = AcceleratorVerdict(accelerator: .tcg, reason: "", fingerprint: fingerprint)
        if let obstacle = try await threads.runIfActive({ Self.obstacle() }) {
            verdict.reason = obstacle
            return verdict
        }
        logger.notice("Probing KVM: a guest is booted", metadata: ["deadline_s": "\(Int(deadline.seconds))"])
        if let failure = try await boot(threads: threads) {
            verdict.reason = "/dev/kvm opens but does not run a guest: \(failure)"
        } else {
            verdict.accelerator = .kvm
            verdict.reason = "A guest booted under KVM"
        }
        let result = verdict
        try await threads.runIfActive {
            try JSONEncoder().encode(result).write(to: URL(filePath: cache), options: .atomic)
        }
        return verdict
    }

    /// Boots a guest under KVM; nil when it ran, else why it did not.
    private func boot(threads: NIOThreadPool) async throws -> String? {
        var configuration = configuration
        configuration.accelerator = .kvm
        configuration.bootTimeout = deadline
        configuration.directory += "-probe"
        configuration.templates = nil
        let engine = try await MicroVMEngine.open(configuration, threads: threads, logger: logger)
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await engine.run() }
            defer { group.cancelAll() }
            let vm = try engine.spawn(VMShape(memoryMB: 256, vcpuCount: 1), environment: [:], diskLimit: nil)
            do {
                let agent = try await vm.agent(until: .now + deadline)
                return agent == nil ? "it did not boot within \(Int(deadline.seconds)) s" : nil
            } catch {
                return "\(error)"
            }
        }
    }

    /// What keeps KVM from being tried at all; nil when it can be.
    private static func obstacle() -> String? {
        let device = open("/dev/kvm", O_RDWR | O_CLOEXEC)
        guard device >= 0 else {
            switch errno {
            case ENOENT: return "This host has no /dev/kvm"
            case EACCES: return "/dev/kvm may not be opened by this user; add it to the group kvm"
            default: return "/dev/kvm does not open: \(String(cString: strerror(errno)))"
            }
        }
        close(device)
        return nil
    }

    private static func load(_ path: String) -> AcceleratorVerdict? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        // A file of another version is as good as none: the probe writes it anew.
        return try? JSONDecoder().decode(AcceleratorVerdict.self, from: data)
    }

    /// The host's kernel and processor, its KVM module and QEMU's file.
    private static func fingerprint(qemu: String) -> String {
        var system = utsname()
        uname(&system)
        let release = withUnsafeBytes(of: &system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let processor =
            (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?
            .split(separator: "\n").first { $0.hasPrefix("model name") } ?? ""
        let attributes = try? FileManager.default.attributesOfItem(atPath: qemu)
        let modified = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
        return "\(release)|\(processor)|\(qemu)|\(Int(modified))|\(access("/dev/kvm", R_OK | W_OK) == 0)"
    }
}
