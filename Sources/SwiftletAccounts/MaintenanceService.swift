// SPDX-License-Identifier: Apache-2.0

package import Logging
import ServiceLifecycle
import SwiftletStore

/// Flushes pending updates that requests do not wait for, and deletes expired rows.
package struct MaintenanceService: Service {
    private let accounts: AccountServices

    package init(_ accounts: AccountServices) {
        self.accounts = accounts
    }

    package func run() async throws {
        let tasks = PeriodicTasks(
            [
                PeriodicTask("uses of keys", interval: 1) { [accounts] in try await accounts.uses.flush() },
                PeriodicTask("rates", interval: 60) { [accounts] in try await accounts.limiter.purge() },
                PeriodicTask("log-ins", interval: 60) { [accounts] in try await accounts.passwords.attempts.purge() },
                PeriodicTask("command line authorizations", interval: 60) { [accounts] in
                    try await accounts.cliAuthorizations.purge()
                },
                PeriodicTask("dead keys", interval: 3_600) { [accounts] in try await accounts.purgeKeys() },
            ],
            logger: accounts.logger
        )
        await cancelWhenGracefulShutdown {
            var second = 0
            // A cancelled sleep is the end.
            while (try? await Task.sleep(for: .seconds(1))) != nil {
                second += 1
                await tasks.perform(at: second)
            }
        }
        await tasks.perform(at: 1)
    }
}

/// Work that is repeated at an interval.
package struct PeriodicTask: Sendable {
    let name: String
    /// Seconds between two runs.
    let interval: Int
    let work: @Sendable () async throws -> Void

    package init(_ name: String, interval: Int, work: @escaping @Sendable () async throws -> Void) {
        self.name = name
        self.interval = interval
        self.work = work
    }
}

/// Independent periodic tasks: the failure of one is logged, and the others run.
package struct PeriodicTasks: Sendable {
    private let tasks: [PeriodicTask]
    private let logger: Logger

    package init(_ tasks: [PeriodicTask], logger: Logger) {
        self.tasks = tasks
        self.logger = logger
    }

    /// Runs the tasks that are due in this second.
    package func perform(at second: Int) async {
        for task in tasks where second.isMultiple(of: task.interval) {
            do {
                try await task.work()
            } catch {
                logger.warning(
                    "Housekeeping of accounts failed",
                    metadata: ["task": "\(task.name)", "error": "\(error)"]
                )
            }
        }
    }
}
