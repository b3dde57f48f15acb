// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation

/// SHA-256 of texts, as the database and comparisons have it.
package enum TextDigest {
    /// 64 hexadecimal digits.
    package static func of(_ text: String) -> String {
        SHA256.hash(data: Data(text.utf8)).hexadecimal
    }
}

extension Sequence<UInt8> {
    /// Two lower-case digits a byte.
    package var hexadecimal: String {
        let digits = Array("0123456789abcdef".utf8)
        let text = flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
        return String(decoding: text, as: UTF8.self)
    }
}
