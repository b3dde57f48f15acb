// SPDX-License-Identifier: Apache-2.0

/// Where a browser may be sent with a code: a plain HTTP address of the machine that it runs on, without a query of its own.
struct LoopbackRedirect: Equatable, Sendable {
    /// The address as it was given.
    let text: String
    /// Scheme, host and port.
    let origin: String

    /// Fails for everything else. It reads letter by letter, so that no browser can read it otherwise.
    init?(_ text: String) {
        guard text.utf8.count <= 1_024, text.hasPrefix("http://") else { return nil }
        let rest = text.dropFirst("http://".count)
        let authority = rest.prefix { $0 != "/" }
        let path = rest.dropFirst(authority.count)
        guard let host = ["127.0.0.1", "[::1]", "localhost"].first(where: { authority.hasPrefix($0) }),
            Self.isPort(authority.dropFirst(host.count)), path.utf8.allSatisfy(Self.isPlain)
        else { return nil }
        self.text = text
        origin = "http://\(authority)"
    }

    /// The address with the state and the code as its query.
    func location(state: String, code: String) -> String {
        "\(text)?state=\(Self.encoded(state))&code=\(Self.encoded(code))"
    }

    private static func isPort(_ text: Substring) -> Bool {
        guard !text.isEmpty else { return true }
        guard text.first == ":", text.dropFirst().utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let port = Int(text.dropFirst())
        else { return false }
        return (1...65_535).contains(port)
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        isUnreserved(byte) || byte == UInt8(ascii: "/")
    }

    private static func isUnreserved(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
            UInt8(ascii: "~"):
            true
        default:
            false
        }
    }

    private static func encoded(_ text: String) -> String {
        text.utf8.reduce(into: "") { encoded, byte in
            if isUnreserved(byte) {
                encoded.unicodeScalars.append(UnicodeScalar(byte))
            } else {
                encoded += (byte < 16 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
            }
        }
    }
}
