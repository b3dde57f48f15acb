// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import NIOPosix
import SwiftletVM

struct ImageCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image",
        abstract: "Builds, lists and removes guest images.",
        subcommands: [Build.self, List.self, Remove.self]
    )

    struct Build: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Builds an image from Debian packages, unless it is there.",
            discussion: """
                The recipe is in guest/. As root, or as a normal user where user namespaces are allowed.

                  swiftlet image build                      the standard image
                  swiftlet image build --variant minimal    Python and bash only
                  swiftlet image build --force              again, with today's packages
                """
        )

        @OptionGroup var common: CommonOptions

        @Option(help: "standard or minimal.")
        var variant: ImageVariant = .standard

        @Flag(help: "Build it even if it is there, for newer packages.")
        var force = false

        func run() async throws {
            let settings = try await common.settings()
            let spawner = NIOThreadPool(numberOfThreads: 1)
            spawner.start()
            let started = Date()
            let recipe = ImageRecipe(resources: settings.resources, variant: variant)
            let image = try await recipe.build(
                into: ImageStore(directory: settings.data.images),
                force: force,
                spawner: spawner,
                threads: .singleton
            ) { line in
                FileHandle.standardError.write(Data("[\(Int(Date().timeIntervalSince(started))) s] \(line)\n".utf8))
            }
            try await spawner.shutdownGracefully()
            print("\(image.id) is in \(image.directory)")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the images, the newest first.")

        @OptionGroup var common: CommonOptions

        func run() async throws {
            let settings = try await common.settings()
            let store = ImageStore(directory: settings.data.images)
            let images = try store.list()
            if images.isEmpty { print("No image in \(settings.data.images); build one with: swiftlet image build") }
            for image in images {
                let recipe = ImageRecipe(resources: settings.resources, variant: image.manifest.variant)
                let state = try recipe.imageID() == image.id ? "current" : "of an older recipe"
                let size = image.sizeOnDisk >> 20
                print("\(image.id)  \(size) MiB  \(image.manifest.createdAt.ISO8601Format())  \(state)")
            }
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Removes an image; VMs that run from it go on.")

        @OptionGroup var common: CommonOptions

        @Argument(help: "The image's id, as `image list` shows it.")
        var id: String

        func run() async throws {
            let settings = try await common.settings()
            try ImageStore(directory: settings.data.images).remove(id)
        }
    }
}

extension ImageVariant: ExpressibleByArgument {}
