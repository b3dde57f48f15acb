// SPDX-License-Identifier: Apache-2.0

import Foundation
import HTTPTypes
import Logging
import SwiftletAccounts
import SwiftletCore

/// Calls of the accounts' services whose refusals become the answers of the API.
extension AccountServices {
    /// Runs a check that decides whether a request is admitted. If the check fails, the request is refused.
    ///
    /// - Throws: `APIError`: that of the body, or 503 for any other error.
    func failingClosed<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
        do {
            return try await body()
        } catch let error as APIError {
            throw error
        } catch let error as LoginError {
            throw APIError(error)
        } catch let error as CancellationError {
            throw error
        } catch {
            Logger.current.error("A request could not be admitted", metadata: ["error": "\(error)"])
            throw APIError.admissionUnavailable
        }
    }

    /// Authenticates by password, and records in the request's audit context for which account.
    ///
    /// - Returns: nil when address and password do not belong together.
    /// - Throws: `APIError`: 429 after too many attempts, 503 when too many are being checked.
    func logIn(email: String, password: String, from address: ClientAddress) async throws -> Account? {
        try await failingClosed {
            do {
                let outcome = try await passwords.authenticate(email: email, password: password, from: address)
                RequestAuditContext.record {
                    $0.owner = outcome.owner
                    guard let account = outcome.account else { return }
                    $0.user = account.id
                    $0.credential = "password"
                }
                return outcome.account
            } catch let error as LoginError {
                if case .verifierBusy(let owner) = error { RequestAuditContext.record { $0.owner = owner } }
                throw error
            }
        }
    }

    /// Creates a key, and records it in the request's audit context.
    ///
    /// - Throws: `APIError` when the user has too many.
    func issueKey(
        for user: UserID,
        label: String,
        expiresAt: Date? = nil
    ) async throws -> (text: String, key: APIKey) {
        do {
            let created = try await createKey(for: user, label: label, expiresAt: expiresAt)
            RequestAuditContext.record { $0.resource = String(created.key.id) }
            return created
        } catch let error as TooManyKeys {
            throw APIError(error)
        }
    }
}

extension APIError {
    init(_ error: TooManyKeys) {
        self.init(.conflict, "You may have \(error.limit) valid keys, and have so many; delete some")
    }

    init(_ error: LoginError) {
        switch error {
        case .tooManyAttempts(let reason, let limit): self = .tooManyRequests(reason, limit)
        case .verifierBusy:
            self.init(
                .serviceUnavailable,
                "Too many passwords are being checked; try again soon",
                headers: [.retryAfter: "5"]
            )
        }
    }

    init(_ error: AdmissionError) {
        switch error {
        case .quotaExceeded(let reason, let limit): self = .tooManyRequests(reason, limit)
        case .forbidden: self.init(.forbidden, error.description)
        case .limitsUnavailable:
            self.init(.serviceUnavailable, error.description, headers: [.retryAfter: "5"])
        }
    }
}
