// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import NIOPosix
import SwiftletCore
import SwiftletVM

struct TemplateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "template",
        abstract: "Builds, lists and removes templates: booted guests that new VMs are copies of.",
        discussion:
            "A server builds the templates that it needs by itself; this is for doing it ahead, or for tidying up.",
        subcommands: [Build.self, List.self, Remove.self]
    )

    struct Build: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Builds a template, unless it is there.")

        @OptionGroup var common: CommonOptions

        @Option(help: "standard or minimal.")
        var variant: ImageVariant = .standard

        @Option(help: "Memory in MiB, 128..8192. Default: that of sessions that do not say")
        var memoryMb: Int?

        @Option(help: "Virtual processors: 1, 2, 4, 6 or 8. Default: those of sessions that do not say")
        var vcpuCount: Int?

        @Option(help: "auto, tcg or kvm.")
        var accelerator = "auto"

        func validate() throws {
            guard memoryMb.map(Limits.memoryMB.contains) ?? true else {
                throw ValidationError("--memory-mb: \(Limits.memoryMB.lowerBound)..\(Limits.memoryMB.upperBound)")
            }
            guard vcpuCount.map(Limits.vcpuCounts.contains) ?? true else {
                throw ValidationError("--vcpu-count: \(Limits.vcpuCounts.map(String.init).joined(separator: ", "))")
            }
        }

        func run() async throws {
            let settings = try await common.settings([.imageVariant: variant.rawValue, .accelerator: accelerator])
            try settings.data.create()
            let logger = Logger(label: "swiftlet")
            var configuration = try EngineFactory.configuration(settings)
            configuration.accelerator = try await EngineFactory.accelerator(
                settings,
                configuration: configuration,
                threads: .singleton,
                logger: logger
            )
            // A server may be running from the same data directory.
            configuration.directory += "-template-\(getpid())"
            defer { try? FileManager.default.removeItem(atPath: configuration.directory) }
            let shape = VMShape(memoryMB: memoryMb ?? settings.memoryMB, vcpuCount: vcpuCount ?? settings.vcpuCount)
            let template = try await MicroVMEngine.buildTemplate(
                configuration,
                shape: shape,
                threads: .singleton,
                logger: logger
            )
            print("\(template.name) is in \(template.directory)")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the templates, the last used first.")

        @OptionGroup var common: CommonOptions

        func run() async throws {
            let directory = try await common.settings().data.templates
            let templates = TemplateStore(directory: directory).list()
            if templates.isEmpty { print("No template in \(directory); a server builds what it needs") }
            for template in templates {
                let identity = template.manifest.identity
                print(
                    "\(template.name)  \(identity.shape)  \(identity.accelerator.rawValue)  \(template.sizeOnDisk >> 20) MiB  "
                        + "built \(template.manifest.createdAt.ISO8601Format())  used \(template.usedAt.ISO8601Format())"
                )
            }
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract:
                "Removes a template; VMs that are copies of it go on, and a server builds it anew when it needs it."
        )

        @OptionGroup var common: CommonOptions

        @Argument(help: "The template's name, as `template list` shows it.")
        var name: String

        func run() async throws {
            try TemplateStore(directory: try await common.settings().data.templates).remove(name)
        }
    }
}
