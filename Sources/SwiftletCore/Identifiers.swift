// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The caller's handle on a session: a UUID, written in lower case.
package struct SessionID: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: String

    /// Fails unless the text is a UUID; upper case is accepted and made lower.
    package init?(rawValue: String) {
        guard let uuid = UUID(uuidString: rawValue) else { return nil }
        self.rawValue = uuid.uuidString.lowercased()
    }

    private init(_ uuid: UUID) {
        rawValue = uuid.uuidString.lowercased()
    }

    /// A new, random identifier.
    package static func random() -> SessionID { SessionID(UUID()) }

    package var description: String { rawValue }
}

/// A random handle that begins with what it is of: a prefix and 32 hexadecimal digits.
package protocol PrefixedID: RawRepresentable<String>, Hashable, Sendable, CustomStringConvertible {
    static var prefix: String { get }

    /// Takes a text that is known to be one.
    init(unchecked rawValue: String)
}

extension PrefixedID {
    /// Fails unless the text is one that ``random()`` could have made.
    package init?(rawValue: String) {
        let digits = rawValue.utf8.dropFirst(Self.prefix.utf8.count)
        guard rawValue.hasPrefix(Self.prefix), digits.count == 32,
            digits.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
        else { return nil }
        self.init(unchecked: rawValue)
    }

    /// A new, random identifier.
    package static func random() -> Self {
        Self(unchecked: prefix + UUID().uuidString.lowercased().replacing("-", with: ""))
    }

    package var description: String { rawValue }
}

/// The handle on an execution: `exec-...`. It names files too.
package struct ExecutionID: PrefixedID {
    package static let prefix = "exec-"
    package let rawValue: String

    package init(unchecked rawValue: String) {
        self.rawValue = rawValue
    }
}

/// The handle on an audit event: `evt-...`. It tells nobody how much others do.
package struct AuditEventID: PrefixedID {
    package static let prefix = "evt-"
    package let rawValue: String

    package init(unchecked rawValue: String) {
        self.rawValue = rawValue
    }
}

/// A user's number in the database.
package struct UserID: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: Int64

    package init(rawValue: Int64) {
        self.rawValue = rawValue
    }

    package var description: String { String(rawValue) }
}
