// SPDX-License-Identifier: Apache-2.0

package import Logging
import ServiceLifecycle
import SwiftletStore

/// Writes down late what no request shall wait for, and forgets what is over.
package struct AccountHousekeeper: Service {
    private let accounts: AccountServices

    package init(_ accounts: AccountServices) {
        self.accounts = accounts
    }

    package func run() async throws {
        let chores = Chores(
            [
                Chore("uses of keys", interval: 1) { [accounts] in try await accounts.uses.flush() },
                Chore("rates", interval: 60) { [accounts] in try await accounts.limiter.purge() },
                Chore("log-ins", interval: 60) { [accounts] in try await accounts.logIn.attempts.purge() },
                Chore("pairings", interval: 60) { [accounts] in try await accounts.pairings.purge() },
                Chore("dead keys", interval: 3_600) { [accounts] in try await accounts.purgeKeys() },
            ],
            logger: accounts.logger
        )
        await cancelWhenGracefulShutdown {
            var second = 0
            // A cancelled sleep is the end.
            while (try? await Task.sleep(for: .seconds(1))) != nil {
                second += 1
                await chores.perform(at: second)
            }
        }
        await chores.perform(at: 1)
    }
}

/// Something to be done again and again.
package struct Chore: Sendable {
    let name: String
    /// Seconds from one time to the next.
    let interval: Int
    let work: @Sendable () async throws -> Void

    package init(_ name: String, interval: Int, work: @escaping @Sendable () async throws -> Void) {
        self.name = name
        self.interval = interval
        self.work = work
    }
}

/// Chores that do not depend on each other: the failure of one is logged, and keeps none of the others from being done.
package struct Chores: Sendable {
    private let chores: [Chore]
    private let logger: Logger

    package init(_ chores: [Chore], logger: Logger) {
        self.chores = chores
        self.logger = logger
    }

    /// Does what is due in some second.
    package func perform(at second: Int) async {
        for chore in chores where second.isMultiple(of: chore.interval) {
            do {
                try await chore.work()
            } catch {
                logger.warning(
                    "Housekeeping of accounts failed",
                    metadata: ["chore": "\(chore.name)", "error": "\(error)"]
                )
            }
        }
    }
}
