// SPDX-License-Identifier: Apache-2.0

extension Schema {
    /// Audit events.
    static let audit = [
        // No references: an event outlives the rows that it names.
        """
        CREATE TABLE audit_events (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            created_at BIGINT NOT NULL,
            event_group TEXT NOT NULL,
            event_type TEXT NOT NULL,
            status TEXT NOT NULL,
            actor_type TEXT NOT NULL,
            actor_id BIGINT,
            owner_id BIGINT,
            credential TEXT,
            address TEXT,
            request_id TEXT,
            session_id TEXT,
            vm_id TEXT,
            resource_id TEXT,
            details TEXT NOT NULL,
            message TEXT
        )
        """,
        // Each is in the order of the answer, so that a client that asks every two seconds costs a page's reading.
        "CREATE INDEX audit_by_owner ON audit_events(owner_id, number)",
        "CREATE INDEX audit_by_group ON audit_events(owner_id, event_group, number)",
        "CREATE INDEX audit_by_type ON audit_events(owner_id, event_type, number)",
        "CREATE INDEX audit_of_refusals ON audit_events(owner_id, status, number) WHERE status <> 'success'",
        "CREATE INDEX audit_by_session ON audit_events(session_id, number) WHERE session_id IS NOT NULL",
        "CREATE INDEX audit_by_vm ON audit_events(vm_id, number) WHERE vm_id IS NOT NULL",
        "CREATE INDEX audit_by_time ON audit_events(created_at)",
    ]
}
