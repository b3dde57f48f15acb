// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation

/// What every command that works on a server's own files takes.
struct CommonOptions: ParsableArguments {
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

    /// The flags that were given.
    var flags: [Setting: String] {
        let all: [(Setting, String?)] = [
            (.dataDirectory, dataDirectory), (.imagesDirectory, imagesDirectory), (.resources, resources),
            (.templatesDirectory, templatesDirectory),
        ]
        return all.reduce(into: [:]) { $0[$1.0] = $1.1 }
    }

    /// All settings, with further flags of a command.
    func settings(_ more: [Setting: String] = [:]) async throws -> Settings {
        let standard = "/etc/swiftlet/swiftlet.json"
        let environment = ProcessInfo.processInfo.environment["SWIFTLET_CONFIG"]
        let file = config ?? environment ?? (FileManager.default.fileExists(atPath: standard) ? standard : nil)
        return try await Settings.read(flags: flags.merging(more) { $1 }, file: file)
    }
}
