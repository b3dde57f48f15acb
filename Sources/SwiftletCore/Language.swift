// SPDX-License-Identifier: Apache-2.0

/// A language of `POST /execute`.
package enum Language: String, Sendable, CaseIterable {
    case python
    case bash
    case javascript

    /// Calls of a session run one after another: they share an interpreter.
    package var isStateful: Bool { self != .bash }

    /// Reads a client's word for a language, common aliases included; nil when it is unknown.
    package init?(name: String) {
        switch name.lowercased() {
        case "python", "python3", "py": self = .python
        case "javascript", "js", "node": self = .javascript
        case "bash", "sh", "shell": self = .bash
        default: return nil
        }
    }
}
