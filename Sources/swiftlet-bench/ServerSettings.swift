// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletClient

/// Where the files of the servers that are started are: as for `swiftlet serve`, by option, else environment, else configuration file.
struct ServerOptions: ParsableArguments {
    @Option(help: "Where the server keeps its data. Default: ~/.local/share/swiftlet")
    var dataDirectory: String?

    @Option(help: "Where images are. Default: images/ in the data directory")
    var imagesDirectory: String?

    @Option(help: "Where templates are. Default: templates/ in the data directory")
    var templatesDirectory: String?

    @Option(help: "The guest/ directory with the image's recipe. Default: found beside the executable")
    var resources: String?

    @Option(help: "A JSON file with settings. Default: /etc/swiftlet/swiftlet.json, if it exists")
    var config: String?

    @Option(help: "The image of the servers that are started.")
    var imageVariant = "standard"

    @Option(help: "auto, tcg or kvm, of the servers that are started.")
    var accelerator: String?
}

/// Settings of the servers that are started, as far as the bench must know them.
struct ServerSettings {
    /// The `swiftlet` executable.
    let program: String
    let qemu: String
    private let images: String
    private let templates: String
    private let options: ServerOptions

    /// - Throws: `ValidationError` when the configuration file cannot be read, or there is no `swiftlet` beside this program.
    init(_ options: ServerOptions) throws {
        let environment = ProcessInfo.processInfo.environment
        let file = try Self.file(options.config ?? environment["SWIFTLET_CONFIG"])
        let data = options.dataDirectory ?? environment["SWIFTLET_DATA_DIRECTORY"] ?? file["dataDirectory"]
        let directory = data ?? FirstKey.standardDataDirectory
        let images = options.imagesDirectory ?? environment["SWIFTLET_IMAGES_DIRECTORY"] ?? file["imagesDirectory"]
        let templates =
            options.templatesDirectory ?? environment["SWIFTLET_TEMPLATES_DIRECTORY"] ?? file["templatesDirectory"]
        self.options = options
        self.images = images ?? "\(directory)/images"
        self.templates = templates ?? "\(directory)/templates"
        qemu = environment["SWIFTLET_QEMU"] ?? file["qemu"] ?? "/usr/bin/qemu-system-x86_64"
        let executable = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        program = executable.deletingLastPathComponent().appending(path: "swiftlet").path
        guard FileManager.default.isExecutableFile(atPath: program) else {
            throw ValidationError("\(program) is not there; swiftlet-bench belongs into the directory of swiftlet")
        }
    }

    func serveArguments(data directory: String) -> [String] {
        var words = [
            "serve", "--port", "0", "--data-directory", directory, "--images-directory", images,
            "--templates-directory", templates, "--image-variant", options.imageVariant, "--log-level", "error",
        ]
        let optional = [
            ("--accelerator", options.accelerator), ("--resources", options.resources), ("--config", options.config),
        ]
        for case (let name, let value?) in optional { words += [name, value] }
        return words
    }

    /// The text settings of a configuration file; the standard one need not exist.
    private static func file(_ given: String?) throws -> [String: String] {
        let standard = "/etc/swiftlet/swiftlet.json"
        guard given != nil || FileManager.default.fileExists(atPath: standard) else { return [:] }
        let path = given ?? standard
        let object: Any
        do {
            object = try JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: path)))
        } catch {
            throw ValidationError("The configuration file \(path) cannot be read: \(error)")
        }
        return (object as? [String: Any] ?? [:]).compactMapValues { $0 as? String }
    }
}
