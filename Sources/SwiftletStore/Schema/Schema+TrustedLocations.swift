// SPDX-License-Identifier: Apache-2.0

extension Schema {
    /// From where accounts were logged in to, and whose a device's log-in is.
    static let knownLogins = [
        // Both by digests.
        "CREATE TABLE known_logins (pair TEXT PRIMARY KEY, account TEXT NOT NULL, used_at BIGINT NOT NULL)",
        "CREATE INDEX known_logins_by_account ON known_logins(account, used_at)",
        "ALTER TABLE cli_pairings ADD COLUMN household TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE cli_pairings ADD COLUMN network TEXT",
        // The generation of its user's tokens when they logged in: a code of another is worthless.
        "ALTER TABLE cli_pairings ADD COLUMN token_generation BIGINT",
        "CREATE INDEX cli_pairings_by_household ON cli_pairings(household)",
        "CREATE INDEX cli_pairings_by_network ON cli_pairings(network)",
    ]
}
