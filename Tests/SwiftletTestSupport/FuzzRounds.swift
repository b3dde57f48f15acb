// SPDX-License-Identifier: Apache-2.0

import Foundation

/// How many inputs a fuzz test tries: all of them in a release build and in `make soak`, else a fifth, as each costs about ten
/// times as much in a debug build.
package func fuzzRounds(_ count: Int) -> Int {
    #if DEBUG
        ProcessInfo.processInfo.environment["SWIFTLET_SOAK"] == "1" ? count : count / 5
    #else
        count
    #endif
}
