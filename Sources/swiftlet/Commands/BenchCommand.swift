// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import Glibc

/// Becomes `swiftlet-bench`, the load generator, which is beside this program; its arguments, help and exit status are the command's.
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measures servers, as their clients see them.",
        // Its own help would hide the load generator's.
        helpNames: []
    )

    @Argument(parsing: .captureForPassthrough)
    var arguments: [String] = []

    func run() throws {
        try Self.become(arguments)
    }

    /// The load generator's arguments, if these words ask for it or for its help.
    static func arguments(in words: [String]) -> [String]? {
        if words.first == "bench" { return Array(words.dropFirst()) }
        return words == ["help", "bench"] ? ["--help"] : nil
    }

    /// Replaces this process, so that signals reach the load generator and its exit status is this command's.
    ///
    /// - Throws: `ValidationError` when it is not there.
    static func become(_ arguments: [String]) throws {
        let executable = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        let path = executable.deletingLastPathComponent().appending(path: "swiftlet-bench").path
        let words = ([path] + arguments).map { strdup($0) } + [nil]
        execv(path, words)
        let reason = String(cString: strerror(errno))
        words.forEach { free($0) }
        throw ValidationError(
            "\(path) cannot be started (\(reason)); build it: swift build -c release --product swiftlet-bench"
        )
    }
}
