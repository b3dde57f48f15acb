// SPDX-License-Identifier: Apache-2.0

import Glibc
package import NIOCore
package import NIOPosix

/// A program that is run for its output and ends soon.
package struct ShortCommand: Sendable {
    package struct Outcome: Sendable {
        package let status: ChildProcess.Status
        /// Its stdout and stderr together; the last 64 KiB.
        package let output: String
    }

    package var executable: String
    package var arguments: [String]
    /// Added to a plain environment.
    package var environment: [String: String] = [:]

    /// What it gets as descriptors 3, 4, ...; the caller closes its own.
    var descriptors: [Int32] = []

    package init(_ executable: String, _ arguments: [String]) {
        self.executable = executable
        self.arguments = arguments
    }

    /// Runs it to its end; after the time limit it is killed.
    ///
    /// - Parameters:
    ///   - spawner: one thread that lives as long as this process.
    ///   - threads: for the wait.
    ///   - onLine: called with each line as it comes, line feed excluded.
    /// - Throws: `MicroVMError.cannotStart` when it cannot be started.
    package func run(
        within limit: TimeAmount = .seconds(30),
        spawner: NIOThreadPool,
        threads: NIOThreadPool,
        onLine: (@Sendable (String) -> Void)? = nil
    ) async throws -> Outcome {
        var output = try SocketPair()
        let null = try Descriptor.null()
        let process = try await ChildProcess.spawn(
            executable,
            arguments: arguments,
            environment: [
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
            ].merging(environment) { $1 },
            descriptors: [null.number, output.theirs, output.theirs] + descriptors,
            on: spawner
        )
        output.closeTheirs()
        let group = MultiThreadedEventLoopGroup.singleton
        let timer = group.next().scheduleTask(in: limit) { process.signal(SIGKILL) }
        defer { timer.cancel() }
        let capture: TailCapture
        do {
            capture = try await TailCapture.open(
                socket: try output.take(),
                limit: 64 * 1024,
                onLine: onLine,
                on: group
            )
        } catch {
            process.signal(SIGKILL)
            _ = try await process.wait(on: threads)
            throw error
        }
        let status = try await process.wait(on: threads)
        // A child of its own may hold the other end for longer; what the program itself wrote arrives at once.
        try await capture.waitForEnd(atMost: .seconds(1))
        return Outcome(status: status, output: try await capture.text())
    }
}
