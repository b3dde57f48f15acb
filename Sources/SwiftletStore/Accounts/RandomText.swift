// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Random secrets in base64url, which URLs and headers can carry.
enum RandomText {
    static func make(bytes: Int) -> String {
        var generator = SystemRandomNumberGenerator()
        return Data((0..<bytes).map { _ in UInt8.random(in: 0...255, using: &generator) }).base64URL
    }
}

extension Data {
    /// Base 64 in the alphabet of URLs, without padding.
    var base64URL: String {
        base64EncodedString()
            .replacingOccurrences(of: "+", with: "-")
            .replacingOccurrences(of: "/", with: "_")
            .replacingOccurrences(of: "=", with: "")
    }
}
