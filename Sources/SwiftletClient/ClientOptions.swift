// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
import Foundation

/// Which server to talk to, and as whom.
package struct ClientOptions: ParsableArguments {
    @Option(help: "The server. Default: SWIFTLET_URL, or http://127.0.0.1:8000")
    package var url: String?

    @Option(help: "An API key. Default: SWIFTLET_API_KEY, or the first key of the server on this machine")
    package var key: String?

    package init() {}

    /// A client of that server; the caller must close it.
    ///
    /// - Throws: `ValidationError` when there is no key for that server.
    package func client() throws -> APIClient {
        let environment = ProcessInfo.processInfo.environment
        let url = url ?? environment["SWIFTLET_URL"] ?? "http://127.0.0.1:8000"
        if let key = key ?? environment["SWIFTLET_API_KEY"] { return APIClient(url: url, key: key) }
        guard Self.isThisMachine(url) else {
            throw ValidationError(
                "No API key: give one with --key or SWIFTLET_API_KEY (this machine's own first key does not go to \(url))"
            )
        }
        let data = environment["SWIFTLET_DATA_DIRECTORY"] ?? FirstKey.standardDataDirectory
        let file = FirstKey.file(inDataDirectory: data)
        guard let stored = try? String(contentsOfFile: file, encoding: .utf8) else {
            throw ValidationError("No API key: give one with --key or SWIFTLET_API_KEY (\(file) is not there)")
        }
        return APIClient(url: url, key: stored.trimmingCharacters(in: .whitespacesAndNewlines))
    }

    /// Whether an address leads to this machine without asking a name server.
    private static func isThisMachine(_ url: String) -> Bool {
        guard let host = URL(string: url)?.host() else { return false }
        if ["localhost", "::1", "[::1]"].contains(host.lowercased()) { return true }
        let numbers = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        return numbers.count == 4 && numbers.first == 127 && !numbers.contains(nil)
    }
}
