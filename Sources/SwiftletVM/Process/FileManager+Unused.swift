// SPDX-License-Identifier: Apache-2.0

import Foundation

extension FileManager {
    /// Marks an entry as used now, and removes its siblings of the same kind that nobody has used for a week.
    ///
    /// Servers share such directories; another may still start VMs from a younger entry than that.
    /// - Parameter prefix: what the names of the kind begin with.
    func markUsed(_ name: String, in directory: String, removingUnused prefix: String) throws {
        try setAttributes([.modificationDate: Date()], ofItemAtPath: "\(directory)/\(name)")
        for name in try contentsOfDirectory(atPath: directory) where name.hasPrefix(prefix) {
            let path = "\(directory)/\(name)"
            // Another server may have removed it meanwhile.
            let changed = try? attributesOfItem(atPath: path)[.modificationDate] as? Date
            guard let changed, changed.timeIntervalSinceNow < -7 * 86_400 else { continue }
            try? removeItem(atPath: path)
        }
    }
}
