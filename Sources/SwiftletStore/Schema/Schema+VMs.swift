// SPDX-License-Identifier: Apache-2.0

extension Schema {
    /// The VMs that sessions had.
    static let vms = [
        // A VM's row outlives its session: usage is computed from it.
        """
        CREATE TABLE vms (
            id TEXT PRIMARY KEY,
            session_id TEXT NOT NULL,
            owner_id BIGINT NOT NULL REFERENCES users(id),
            started_at BIGINT NOT NULL,
            expires_at BIGINT NOT NULL,
            ended_at BIGINT,
            end_reason TEXT,
            vcpu_count BIGINT NOT NULL,
            memory_mb BIGINT NOT NULL,
            origin TEXT
        )
        """,
        "CREATE INDEX vms_by_session ON vms(session_id)",
        "CREATE INDEX vms_by_owner ON vms(owner_id, started_at)",
        "CREATE INDEX vms_by_end ON vms(ended_at)",
    ]
}
