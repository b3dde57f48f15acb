// SPDX-License-Identifier: Apache-2.0

package import Foundation
import JWTKit
package import SwiftletCore

/// Makes and reads the tokens of `POST /token`: JWTs, signed with HMAC-SHA-256.
package struct TokenIssuer: Sendable {
    /// Seconds that a token is good for.
    package static let life = 3_600

    private struct Claims: JWTPayload {
        let sub: SubjectClaim
        let iss: IssuerClaim
        let iat: IssuedAtClaim
        let exp: ExpirationClaim
        /// The generation of the account's tokens; see ``Account/tokenGeneration``.
        let gen: Int64

        func verify(using algorithm: some JWTAlgorithm) throws {
            try exp.verifyNotExpired()
        }
    }

    private static let issuer = "swiftlet"
    private let keys: JWTKeyCollection

    init(secret: [UInt8]) async {
        keys = await JWTKeyCollection().add(hmac: HMACKey(from: secret), digestAlgorithm: .sha256)
    }

    package func token(for account: Account, at moment: Date = Date()) async throws -> String {
        // Whole seconds: not every reader of tokens takes fractions.
        let moment = Date(timeIntervalSince1970: moment.timeIntervalSince1970.rounded(.down))
        return try await keys.sign(
            Claims(
                sub: SubjectClaim(value: String(account.id.rawValue)),
                iss: IssuerClaim(value: Self.issuer),
                iat: IssuedAtClaim(value: moment),
                exp: ExpirationClaim(value: moment.addingTimeInterval(Double(Self.life))),
                gen: account.tokenGeneration
            )
        )
    }

    /// The user and the generation of a valid token; nil when it is expired or its signature or issuer is wrong.
    package func read(_ token: String) async -> (user: UserID, generation: Int64)? {
        guard let claims = try? await keys.verify(token, as: Claims.self), claims.iss.value == Self.issuer,
            let id = Int64(claims.sub.value)
        else { return nil }
        return (UserID(rawValue: id), claims.gen)
    }

    /// Whether a text has the form of a token, which no API key has.
    package static func isToken(_ text: String) -> Bool {
        text.hasPrefix("eyJ") && text.utf8.count { $0 == UInt8(ascii: ".") } == 2
    }
}
