// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Logging
import SwiftletHTTP

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Starts the server.",
        discussion: """
            The first start creates a user and a key and prints both. SIGTERM or Ctrl-C ends it: it takes no new requests, lets \
            running ones finish within --shutdown-seconds, and kills the microVMs.

              swiftlet serve --port 9000 --image-variant minimal
            """
    )

    @OptionGroup var common: CommonOptions

    @Option(help: "The address to listen on. Default: 127.0.0.1")
    var host: String?

    @Option(help: "The port to listen on; 0 takes a free one. Default: 8000")
    var port: String?

    @Option(help: "trace, debug, info, notice, warning, error or critical. Default: info")
    var logLevel: String?

    @Option(help: "text, or json for one object a line. Default: text")
    var logFormat: String?

    @Option(help: "standard or minimal. Default: standard")
    var imageVariant: String?

    @Option(help: "auto (found by booting a probe), tcg or kvm. Default: auto")
    var accelerator: String?

    @Option(help: "How many microVMs may live at once. Default: what the machine's memory holds")
    var maximumVms: String?

    @Option(help: "How many microVMs of the default shape wait for a session, ready. Default: 2")
    var poolSize: String?

    @Flag(help: "Start QEMU without its jail, where there can be none and every guest is trusted.")
    var insecureNoJail = false

    @Option(help: "How long running requests may take when the server is stopped. Default: 30")
    var shutdownSeconds: String?

    func run() async throws {
        let given: [(Setting, String?)] = [
            (.host, host), (.port, port), (.logLevel, logLevel), (.imageVariant, imageVariant),
            (.accelerator, accelerator), (.maximumVms, maximumVms), (.shutdownSeconds, shutdownSeconds),
            (.poolSize, poolSize), (.insecureNoJail, insecureNoJail ? "true" : nil),
            (.logFormat, logFormat),
        ]
        let settings = try await common.settings(given.reduce(into: [:]) { $0[$1.0] = $1.1 })
        let (level, format) = (settings.logLevel, settings.logFormat)
        LoggingSystem.bootstrap { label in
            var handler: any LogHandler =
                switch format {
                case .text: StreamLogHandler.standardError(label: label)
                case .json: JSONLogHandler(label: label)
                }
            handler.logLevel = level
            return handler
        }
        let logger = Logger(label: "swiftlet")
        try await withLogger(logger) { logger in
            try await ServeGraph(settings: settings, logger: logger).run()
        }
    }
}
