// SPDX-License-Identifier: Apache-2.0

import SwiftletAgentCore

/// PID 1 of a guest.
@main
struct SwiftletAgent {
    static func main() {
        AgentProcess.main()
    }
}
