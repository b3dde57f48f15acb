// SPDX-License-Identifier: Apache-2.0

import Crypto
import CryptoExtras
import Foundation

/// A password as it is stored: scrypt's result with the parameters that led to it.
package struct PasswordHash: Equatable, Sendable {
    /// The cost of a hash: 128 * N * r bytes of memory, and p times the work.
    package struct Cost: Equatable, Sendable {
        package var n: Int
        package var r: Int
        package var p: Int

        package init(n: Int, r: Int, p: Int) {
            self.n = n
            self.r = r
            self.p = p
        }

        /// 32 MiB and some 0.2 s.
        package static let standard = Cost(n: 1 << 15, r: 8, p: 3)
    }

    /// The longest password, in bytes; a longer one never matches.
    package static let maximumLength = 1_024
    private static let size = 32

    private let cost: Cost
    private let salt: Data
    private let hash: Data

    /// Hashes a password. Takes long, on purpose: not for the cooperative pool.
    package init(of password: String, cost: Cost = .standard) throws {
        var generator = SystemRandomNumberGenerator()
        self.cost = cost
        salt = Data((0..<16).map { _ in UInt8.random(in: 0...255, using: &generator) })
        hash = try Self.derive(password, salt: salt, cost: cost)
    }

    /// A hash that no password matches, made without work; a check against it takes as long as against any other.
    package init(fittingNothingAt cost: Cost) {
        self.cost = cost
        salt = Data(repeating: 0, count: 16)
        hash = Data(repeating: 0, count: Self.size)
    }

    /// Parses the form that ``text`` has; fails for anything else.
    package init?(text: String) {
        let parts = text.split(separator: "$", omittingEmptySubsequences: false)
        guard parts.count == 6, parts[0] == "scrypt",
            let n = Int(parts[1]), let r = Int(parts[2]), let p = Int(parts[3]),
            let salt = Data(base64Encoded: String(parts[4])), let hash = Data(base64Encoded: String(parts[5])),
            hash.count == Self.size
        else { return nil }
        cost = Cost(n: n, r: r, p: p)
        self.salt = salt
        self.hash = hash
    }

    package var text: String {
        "scrypt$\(cost.n)$\(cost.r)$\(cost.p)$\(salt.base64EncodedString())$\(hash.base64EncodedString())"
    }

    /// Whether it is the hash of this password. Takes as long as hashing, whether it matches or not.
    package func matches(_ password: String) throws -> Bool {
        let other = try Self.derive(password, salt: salt, cost: cost)
        // All bytes are looked at, so that time does not tell how many were right.
        return zip(hash, other).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }

    private static func derive(_ password: String, salt: Data, cost: Cost) throws -> Data {
        try KDF.Scrypt.deriveKey(
            from: Data(password.utf8.prefix(maximumLength + 1)),
            salt: salt,
            outputByteCount: size,
            rounds: cost.n,
            blockSize: cost.r,
            parallelism: cost.p
        ).withUnsafeBytes { Data($0) }
    }
}
