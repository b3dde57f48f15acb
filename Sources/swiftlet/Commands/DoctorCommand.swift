// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Logging
import NIOPosix

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Checks what this host gives to microVMs, and says what to do where it is not enough.",
        discussion: """
            Ends with 1 if there is a problem that keeps the server from running. To find out about KVM it boots a guest, which \
            takes up to 20 seconds the first time; --fresh does it again.
            """
    )

    @OptionGroup var common: CommonOptions

    @Option(help: "The image to check: standard or minimal. Default: standard")
    var imageVariant: String?

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Boot the KVM probe even if its verdict is known.")
    var fresh = false

    func run() async throws {
        let settings = try await common.settings(imageVariant.map { [.imageVariant: $0] } ?? [:])
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = .error
            return handler
        }
        let findings = await HostCheck(settings: settings, fresh: fresh).findings()
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            print(String(decoding: try encoder.encode(findings), as: UTF8.self))
        } else {
            for finding in findings { print(finding.text) }
        }
        if findings.contains(where: { $0.state == .problem }) { throw ExitCode(1) }
    }
}

/// What one check found.
struct Finding: Encodable, Sendable {
    enum State: String, Encodable, Sendable {
        case good
        case warning
        case problem
    }

    var name: String
    var state: State
    var words: String
    /// The command that mends it.
    var remedy: String?

    var text: String {
        let mark =
            switch state {
            case .good: "ok      "
            case .warning: "warning "
            case .problem: "PROBLEM "
            }
        return "\(mark) \(name): \(words)" + (remedy.map { "\n          mend it with: \($0)" } ?? "")
    }
}
