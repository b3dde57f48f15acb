// SPDX-License-Identifier: Apache-2.0

package import Foundation
import Glibc

/// Runs a server for as long as another process holds the other end of a pipe, then ends it and removes its directory.
///
/// A process of its own, because the benchmark itself may be killed: the kernel then closes the pipe, and this process reads
/// its end. The parent-death signal would not do: it comes when the *thread* that started the child ends.
package enum Supervisor {
    /// The first argument that makes this program a supervisor.
    package static let command = "supervise"

    /// Seconds that a server has between SIGTERM and SIGKILL.
    private static let patience = 15.0

    /// Returns when the server has ended and its directory is gone.
    ///
    /// - Parameters:
    ///   - directory: removed at the end.
    ///   - words: the server's executable and its arguments; its standard output is this process's.
    ///   - input: read to its end; what arrives there is ignored.
    /// - Throws: the system's error when the server cannot be started.
    package static func run(directory: String, words: [String], input: FileHandle = .standardInput) throws {
        // A terminal's ^C goes to the whole group, but how long the server lives is the pipe's to say.
        signal(SIGINT, SIG_IGN)
        signal(SIGHUP, SIG_IGN)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let process = Process()
        process.executableURL = URL(filePath: words[0])
        process.arguments = Array(words.dropFirst())
        process.standardInput = FileHandle.nullDevice
        try process.run()
        // The server alone holds the pipe to the benchmark now, which sees its end if the server dies early.
        try FileHandle.standardOutput.close()
        _ = try? input.readToEnd()
        process.terminate()
        let deadline = Date(timeIntervalSinceNow: patience)
        while process.isRunning, Date() < deadline { usleep(20_000) }
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
    }
}
