// SPDX-License-Identifier: Apache-2.0

import SwiftletCore

/// The part that one call takes in a session.
struct SessionEntry: Sendable {
    let active: ActiveSession
    /// The session was created for this call alone: no client knows of it yet.
    let isMadeForCall: Bool

    var record: SessionRecord { active.record }
    var id: SessionID { record.id }
}
