// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletClient
import SwiftletCore

struct ExecCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exec",
        abstract: "Runs code in a microVM, through the API.",
        discussion: """
            Its output goes where output goes, and its exit code is the code's.

              swiftlet exec 'print(40 + 2)'
              swiftlet exec --language bash 'uname -a; nproc'
              cat script.py | swiftlet exec -
              swiftlet exec --session 4f0c... 'x + 1'
            """
    )

    @OptionGroup var server: ClientOptions

    @Argument(help: "The code; - reads it from standard input.")
    var code: String

    @Option(name: .shortAndLong, help: "python or bash.")
    var language = "python"

    @Option(name: .shortAndLong, help: "A session's id; without it a new session is created.")
    var session: String?

    @Option(name: .shortAndLong, help: "Seconds to wait, 1 to 600.")
    var timeout = Defaults.timeoutSeconds

    @Flag(name: .shortAndLong, help: "Tell the session's and the VM's id, and how long it took, on standard error.")
    var verbose = false

    func run() async throws {
        let source =
            code == "-" ? String(decoding: FileHandle.standardInput.readDataToEndOfFile(), as: UTF8.self) : code
        let body = ExecuteBody(command: source, language: language, sessionID: session, timeout: timeout)
        let client = try server.client()
        let result: ExecuteReply
        do {
            result = try await client.execute(body)
            try await client.close()
        } catch {
            try await client.close()
            throw error
        }
        FileHandle.standardOutput.write(Data(result.stdout.utf8))
        FileHandle.standardError.write(Data(result.stderr.utf8))
        if !result.stderr.isEmpty, !result.stderr.hasSuffix("\n") { FileHandle.standardError.write(Data("\n".utf8)) }
        if verbose {
            let line = "session \(result.sessionID), \(result.vmID), \(result.executionTime) s, \(result.outcome)\n"
            FileHandle.standardError.write(Data(line.utf8))
        }
        if result.exitCode != 0 { throw ExitCode(Int32(result.exitCode & 0xff)) }
    }
}
