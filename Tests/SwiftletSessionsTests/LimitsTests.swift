// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import SwiftletCore
import Testing

/// The agent's protocol stands on nothing, so it states the bounds of its frames itself.
@Suite struct LimitsTests {
    @Test func theAgentTakesWhatTheAPIAllows() {
        #expect(ProtocolLimits.maximumSource == Limits.sourceBytes)
        #expect(FileRequest.maximumPath == Limits.pathBytes.upperBound)
        #expect(FileEntry.maximumName == Limits.nameBytes.upperBound)
        #expect(Int(FileRequest.maximumEntries) == Limits.directoryPageItems.upperBound)
    }
}
