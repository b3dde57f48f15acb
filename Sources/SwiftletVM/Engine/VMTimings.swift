// SPDX-License-Identifier: Apache-2.0

package import SwiftletMetrics

/// How long VMs take to come to be.
package struct VMTimings: Sendable {
    /// From the request for a VM until its guest had confirmed that it is its own, by the machine's origin.
    package let create = Histogram(
        "swiftlet_vm_create_seconds",
        "From the request for a microVM until its guest was ready for code, by origin of its machine."
    )
    /// From the spawn of a QEMU until its guest's state was loaded.
    package let restore = Histogram(
        "swiftlet_machine_restore_seconds",
        "Restoring a machine from its template, for a session that waits or for the pool."
    )
}
