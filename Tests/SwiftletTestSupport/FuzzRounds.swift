// SPDX-License-Identifier: Apache-2.0

/// How many inputs a fuzz test tries: all in a release build, a fifth in a debug build, where each costs about ten times as much.
package func fuzzRounds(_ count: Int) -> Int {
    #if DEBUG
        count / 5
    #else
        count
    #endif
}
