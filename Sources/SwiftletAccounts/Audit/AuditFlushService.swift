// SPDX-License-Identifier: Apache-2.0

import Foundation
package import Logging
import ServiceLifecycle
import SwiftletCore
import SwiftletStore

/// Flushes buffered audit events, deletes expired ones, and audits the start and stop of the server.
///
/// It must be stopped last, since the end of other services is audited too.
package struct AuditFlushService: Service {
    package struct Retention: Sendable {
        /// Seconds that an event is kept.
        package var seconds: Int
        /// How many of the newest events may have executions, transfers and the like among them.
        package var events: Int

        package init(seconds: Int = Defaults.retentionDays * 86_400, events: Int = Defaults.auditEvents) {
            self.seconds = seconds
            self.events = events
        }
    }

    private static let interval: Duration = .milliseconds(500)
    private static let purgeInterval: Duration = .seconds(600)
    private static let purgeBatch = 1_000
    private let log: AuditBuffer
    private let retention: Retention
    private let version: String
    private let logger: Logger

    package init(_ log: AuditBuffer, retention: Retention, version: String, logger: Logger) {
        self.log = log
        self.retention = retention
        self.version = version
        self.logger = logger
    }

    package func run() async throws {
        await log.record(event(.serverStarted))
        await cancelWhenGracefulShutdown {
            var nextPurge = ContinuousClock.now
            while !Task.isCancelled {
                await log.flush()
                if ContinuousClock.now >= nextPurge {
                    await purge()
                    nextPurge = .now + Self.purgeInterval
                }
                // A cancelled sleep is the end.
                try? await Task.sleep(for: Self.interval)
            }
        }
        log.append(event(.serverStopped))
        await log.flush(isLast: true)
    }

    private func event(_ type: AuditEventType) -> AuditEvent {
        var event = AuditEvent(type, by: .system)
        event.details = ["version": .text(version)]
        return event
    }

    private func purge() async {
        let moment = Date().addingTimeInterval(-Double(retention.seconds))
        do {
            while try await log.store.purge(before: moment, keeping: retention.events, limit: Self.purgeBatch),
                !Task.isCancelled
            {}
        } catch is CancellationError {
            // The server is being stopped.
        } catch {
            logger.error("Old audit events could not be deleted", metadata: ["error": "\(error)"])
        }
    }
}
