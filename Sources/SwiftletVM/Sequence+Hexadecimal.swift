// SPDX-License-Identifier: Apache-2.0

import Foundation

extension Sequence<UInt8> {
    /// Two lowercase digits a byte.
    var hexadecimal: String { map { String(format: "%02x", $0) }.joined() }
}
