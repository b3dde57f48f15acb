// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The host's processor. Format: proc(5), /proc/cpuinfo.
package enum HostProcessor {
    /// Its model's name.
    package static var model: String {
        let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
        return line?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
    }
}
