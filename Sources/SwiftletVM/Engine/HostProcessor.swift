// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The host's processor. Format: proc(5), /proc/cpuinfo.
package enum HostProcessor {
    /// Its model's name.
    package static var model: String {
        let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        return value(of: "model name", in: text) ?? "unknown"
    }

    /// Its model's name and its features: a guest that was saved under KVM uses those that it found.
    static var description: String {
        let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        return "\(value(of: "model name", in: text) ?? "unknown"): \(value(of: "flags", in: text) ?? "unknown")"
    }

    private static func value(of name: String, in text: String) -> String? {
        let line = text.split(separator: "\n").first { $0.hasPrefix(name) }
        return line?.split(separator: ":", maxSplits: 1).last.map { $0.trimmingCharacters(in: .whitespaces) }
    }
}
