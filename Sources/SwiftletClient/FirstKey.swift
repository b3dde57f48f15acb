// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The key that a server writes into its data directory for the command line on the same machine.
package enum FirstKey {
    /// `$XDG_DATA_HOME/swiftlet`, or `~/.local/share/swiftlet`: a server's data directory when no setting names another.
    package static var standardDataDirectory: String {
        let environment = ProcessInfo.processInfo.environment
        let base = environment["XDG_DATA_HOME"] ?? (environment["HOME"] ?? "/root") + "/.local/share"
        return base + "/swiftlet"
    }

    package static func file(inDataDirectory path: String) -> String { "\(path)/first-key" }
}
