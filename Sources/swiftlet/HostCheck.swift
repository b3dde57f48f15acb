// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOPosix
import SwiftletVM

/// Checks a host, item by item.
struct HostCheck {
    let settings: Settings
    let fresh: Bool

    func findings() async -> [Finding] {
        let spawner = NIOThreadPool(numberOfThreads: 1)
        spawner.start()
        var findings = [await qemu(spawner: spawner), agent(), tools(), disk(), memory(), image()]
        findings.append(await accelerator())
        findings += await JailCheck(settings: settings).findings()
        // Nothing of ours runs any more, so an error here would mean nothing.
        try? await spawner.shutdownGracefully()
        return findings
    }

    private func qemu(spawner: NIOThreadPool) async -> Finding {
        let remedy = "apt-get install qemu-system-x86 qemu-utils"
        guard FileManager.default.isExecutableFile(atPath: settings.qemu) else {
            return Finding(name: "QEMU", state: .problem, words: "\(settings.qemu) is not there", remedy: remedy)
        }
        do {
            let version = try await ShortCommand(settings.qemu, ["--version"]).run(
                spawner: spawner,
                threads: .singleton
            )
            let help = try await ShortCommand(settings.qemu, ["-accel", "help"]).run(
                spawner: spawner,
                threads: .singleton
            )
            let line = version.output.split(separator: "\n").first.map(String.init) ?? "no version"
            guard help.output.contains("tcg") else {
                let words = "\(line), a build without software emulation"
                return Finding(name: "QEMU", state: .problem, words: words, remedy: remedy)
            }
            return Finding(name: "QEMU", state: .good, words: line)
        } catch {
            return Finding(name: "QEMU", state: .problem, words: "\(error)", remedy: remedy)
        }
    }

    private func agent() -> Finding {
        guard FileManager.default.isReadableFile(atPath: settings.agent) else {
            let words = "\(settings.agent) is not there"
            let remedy = "swift build -c release --product swiftlet-agent"
            return Finding(name: "Guest agent", state: .problem, words: words, remedy: remedy)
        }
        return Finding(name: "Guest agent", state: .good, words: settings.agent)
    }

    private func tools() -> Finding {
        let known = ["/usr/bin/mmdebstrap", "/sbin/mke2fs", "/usr/sbin/mke2fs"]
        let found = known.filter(FileManager.default.isExecutableFile(atPath:))
        guard found.contains("/usr/bin/mmdebstrap"), found.count > 1 else {
            return Finding(
                name: "Image tools",
                state: .warning,
                words: "mmdebstrap or mke2fs is missing; images cannot be built",
                remedy: "apt-get install mmdebstrap e2fsprogs kmod"
            )
        }
        return Finding(name: "Image tools", state: .good, words: "mmdebstrap and mke2fs are there")
    }

    private func disk() -> Finding {
        var path = settings.data.path
        while !FileManager.default.fileExists(atPath: path), path != "/" {
            path = URL(filePath: path).deletingLastPathComponent().path
        }
        let attributes = try? FileManager.default.attributesOfFileSystem(forPath: path)
        guard let free = (attributes?[.systemFreeSize] as? NSNumber)?.int64Value else {
            return Finding(name: "Disk", state: .problem, words: "\(path) cannot be examined")
        }
        let gigabytes = Double(free) / 1e9
        let words = String(format: "%.1f GB free for %@", gigabytes, settings.data.path)
        let remedy = "choose a larger disk with --data-directory"
        if gigabytes < 1 { return Finding(name: "Disk", state: .problem, words: words, remedy: remedy) }
        if gigabytes < 10 { return Finding(name: "Disk", state: .warning, words: words, remedy: remedy) }
        return Finding(name: "Disk", state: .good, words: words)
    }

    private func memory() -> Finding {
        let text = (try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        let available = (line?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) >> 10
        let limits = settings.capacity.memory
        let words =
            "\(available) MiB available; microVMs may hold \(limits.budget) MiB and are promised \(limits.promised)"
        let needed = settings.memoryMB + 128
        if available < needed {
            return Finding(
                name: "Memory",
                state: .problem,
                words: words,
                remedy: "free \(needed) MiB, or set --memory-mb"
            )
        }
        return Finding(name: "Memory", state: .good, words: words)
    }

    private func image() -> Finding {
        let remedy = "swiftlet image build --variant \(settings.imageVariant.rawValue)"
        do {
            let image = try ImageStore(directory: settings.data.images).newest(settings.imageVariant)
            let recipe = ImageRecipe(resources: settings.resources, variant: settings.imageVariant)
            guard try recipe.imageID() == image.id else {
                let words = "\(image.id) is of an older recipe"
                return Finding(name: "Image", state: .warning, words: words, remedy: remedy)
            }
            return Finding(name: "Image", state: .good, words: "\(image.id) is current")
        } catch {
            return Finding(name: "Image", state: .problem, words: "\(error)", remedy: remedy)
        }
    }

    private func accelerator() async -> Finding {
        do {
            try settings.data.create()
            let probe = AcceleratorProbe(
                configuration: try EngineFactory.configuration(settings),
                cache: settings.data.accelerator,
                logger: Logger(label: "doctor")
            )
            let verdict = try await probe.verdict(threads: .singleton, fresh: fresh)
            switch verdict.accelerator {
            case .kvm:
                return Finding(name: "Accelerator", state: .good, words: "KVM. \(verdict.reason)")
            case .tcg:
                let reason = verdict.reason.replacing("\n", with: " ").prefix(300)
                let meaning = """
                    software emulation (TCG). \(reason). It works, and is slower. QEMU's authors do not call TCG a \
                    security boundary: do not run code of people whom you would not give an account on this machine
                    """
                return Finding(name: "Accelerator", state: .warning, words: meaning)
            }
        } catch {
            return Finding(name: "Accelerator", state: .problem, words: "No probe could be booted: \(error)")
        }
    }
}
