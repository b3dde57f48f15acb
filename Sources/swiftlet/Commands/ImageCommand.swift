// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import NIOPosix
import SwiftletVM

struct ImageCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image",
        abstract: "Builds, lists, copies and removes guest images.",
        subcommands: [Build.self, Import.self, Export.self, List.self, Remove.self]
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

        @Option(help: "Take the files that guest/build-image has left in this directory, and do not run it.")
        var built: String?

        func run() async throws {
            let settings = try await common.settings()
            let started = Date()
            let recipe = ImageRecipe(resources: settings.resources, variant: variant)
            let image = try await withSpawner { spawner in
                try await recipe.build(
                    into: ImageStore(directory: settings.data.images),
                    force: force,
                    built: built,
                    spawner: spawner,
                    threads: .singleton
                ) { line in
                    FileHandle.standardError.write(Data("[\(Int(Date().timeIntervalSince(started))) s] \(line)\n".utf8))
                }
            }
            print("\(image.id) is in \(image.directory)")
        }
    }

    struct Import: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Takes an image that `image export` has written, so that this machine need not build it."
        )

        @OptionGroup var common: CommonOptions

        @Argument(help: "The file.")
        var file: String

        func run() async throws {
            let settings = try await common.settings()
            let store = ImageStore(directory: settings.data.images)
            let image = try await withSpawner {
                try await ImageArchive(file: file).read(into: store, spawner: $0, threads: .singleton)
            }
            print("\(image.id) is in \(image.directory)")
        }
    }

    struct Export: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Writes an image into one file, for `image import` on another machine."
        )

        @OptionGroup var common: CommonOptions

        @Argument(help: "The image's id, as `image list` shows it.")
        var id: String

        @Argument(help: "The file, for example image.tar.gz; it must not exist.")
        var file: String

        func run() async throws {
            let settings = try await common.settings()
            let store = ImageStore(directory: settings.data.images)
            try await withSpawner {
                try await ImageArchive(file: file).write(id, from: store, spawner: $0, threads: .singleton)
            }
            print("\(id) is in \(file)")
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

/// Lends the one thread that programs are started from: they end when it does.
private func withSpawner<Result: Sendable>(_ body: (NIOThreadPool) async throws -> Result) async throws -> Result {
    let spawner = NIOThreadPool(numberOfThreads: 1)
    spawner.start()
    do {
        let result = try await body(spawner)
        try await spawner.shutdownGracefully()
        return result
    } catch {
        try await spawner.shutdownGracefully()
        throw error
    }
}

extension ImageVariant: ExpressibleByArgument {}
