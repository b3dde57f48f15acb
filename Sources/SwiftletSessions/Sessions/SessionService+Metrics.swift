// SPDX-License-Identifier: Apache-2.0

package import SwiftletMetrics
import SwiftletVM

extension SessionService {
    package func metrics() async -> [MetricFamily] {
        let engine = await engineNumbers()
        let capacity = engine.capacity
        return [
            MetricFamily(
                "swiftlet_vms",
                .gauge,
                "MicroVMs of sessions, by state.",
                [
                    .init(["state": "starting"], Double(capacity.starting)),
                    .init(["state": "running"], Double(capacity.vms - capacity.starting)),
                ]
            ),
            MetricFamily(
                "swiftlet_pool_machines",
                .gauge,
                "Restored clones that wait for a session, by shape.",
                engine.idle.sorted { $0.key.tag < $1.key.tag }.map { .init(["shape": $0.key.tag], Double($0.value)) }
            ),
            MetricFamily(
                "swiftlet_machines_taken_total",
                .counter,
                "Machines given to sessions, by origin: waiting in the pool, restored for it, or booted.",
                engine.taken.sorted { $0.key < $1.key }.map { .init(["origin": $0.key], Double($0.value)) }
            ),
            MetricFamily(
                "swiftlet_vms_refused_total",
                .counter,
                "VMs refused because the node was full.",
                [.init(Double(engine.refused))]
            ),
            MetricFamily(
                "swiftlet_memory_budget_bytes",
                .gauge,
                "Memory that microVMs take of the node, and may take.",
                [
                    .init(["state": "used"], Double(capacity.memoryMB << 20)),
                    .init(["state": "limit"], Double(capacity.limits.memoryMB << 20)),
                ]
            ),
            engine.timings.create.family,
            engine.timings.restore.family,
        ]
    }
}
