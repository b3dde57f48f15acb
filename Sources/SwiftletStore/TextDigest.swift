// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import SwiftletCore

/// SHA-256 of texts, as the database and comparisons have it.
package enum TextDigest {
    /// 64 hexadecimal digits.
    package static func of(_ text: String) -> String {
        SHA256.hash(data: Data(text.utf8)).hexadecimal
    }
}
