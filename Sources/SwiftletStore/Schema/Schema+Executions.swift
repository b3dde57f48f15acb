// SPDX-License-Identifier: Apache-2.0

extension Schema {
    /// Executions, and those of their outputs that are small.
    static let executions = [
        """
        CREATE TABLE executions (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            owner_id BIGINT NOT NULL REFERENCES users(id),
            session_id TEXT NOT NULL,
            language TEXT NOT NULL,
            mode TEXT NOT NULL,
            state TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            started_at BIGINT,
            ended_at BIGINT,
            timeout DOUBLE PRECISION,
            vm_id TEXT,
            vm_started_at BIGINT,
            restore TEXT,
            exit_code BIGINT,
            signal BIGINT,
            execution_time DOUBLE PRECISION NOT NULL,
            cpu_time DOUBLE PRECISION NOT NULL,
            state_lost BIGINT NOT NULL,
            note TEXT,
            stdout_bytes BIGINT NOT NULL,
            stdout_dropped BIGINT NOT NULL,
            stderr_bytes BIGINT NOT NULL,
            stderr_dropped BIGINT NOT NULL,
            results_bytes BIGINT NOT NULL,
            results_dropped BIGINT NOT NULL,
            output_expired_at BIGINT,
            idempotency_key TEXT,
            request_hash TEXT
        )
        """,
        "CREATE UNIQUE INDEX executions_by_key ON executions(owner_id, idempotency_key)",
        "CREATE INDEX executions_by_owner ON executions(owner_id, number)",
        "CREATE INDEX executions_by_session ON executions(session_id, number)",
        "CREATE INDEX executions_by_end ON executions(ended_at)",
        "CREATE INDEX executions_with_key ON executions(created_at) WHERE idempotency_key IS NOT NULL",
        "CREATE INDEX executions_with_output ON executions(ended_at) WHERE output_expired_at IS NULL",
        """
        CREATE TABLE execution_outputs (
            execution_id TEXT NOT NULL,
            stream TEXT NOT NULL,
            bytes BLOB NOT NULL,
            PRIMARY KEY (execution_id, stream)
        )
        """,
    ]
}
