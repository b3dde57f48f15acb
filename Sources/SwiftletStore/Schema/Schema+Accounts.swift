// SPDX-License-Identifier: Apache-2.0

extension Schema {
    /// Plans, passwords, limits and log-ins.
    static let accounts = [
        "ALTER TABLE users ADD COLUMN name TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE users ADD COLUMN plan TEXT NOT NULL DEFAULT 'unlimited'",
        "ALTER TABLE users ADD COLUMN password_hash TEXT",
        "ALTER TABLE users ADD COLUMN token_generation BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE users ADD COLUMN disabled_at BIGINT",
        "ALTER TABLE api_keys ADD COLUMN expires_at BIGINT",
        "ALTER TABLE api_keys ADD COLUMN last_used_at BIGINT",
        "CREATE INDEX api_keys_by_user ON api_keys(user_id)",
        "CREATE TABLE rate_limits (name TEXT PRIMARY KEY, whole_at BIGINT NOT NULL)",
        """
        CREATE TABLE login_attempts (
            name TEXT PRIMARY KEY,
            failures BIGINT NOT NULL,
            blocked_until BIGINT NOT NULL,
            updated_at BIGINT NOT NULL
        )
        """,
        """
        CREATE TABLE cli_pairings (
            id TEXT PRIMARY KEY,
            state TEXT NOT NULL,
            challenge TEXT NOT NULL,
            redirect_uri TEXT NOT NULL,
            device TEXT NOT NULL,
            expires_at BIGINT NOT NULL,
            user_id BIGINT REFERENCES users(id),
            code_hash TEXT
        )
        """,
    ]
}
