// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletAccounts
import SwiftletCore

extension Settings {
    /// The plans that are built in, and those of the operator's file.
    ///
    /// - Throws: `ValidationError` or `StoreError` naming what is wrong.
    func planCatalog() throws -> PlanCatalog {
        let data = try plansFile.map { file in
            guard let data = FileManager.default.contents(atPath: file) else {
                throw ValidationError("The plans' file \(file) cannot be read")
            }
            return data
        }
        return try PlanCatalog(json: data, defaultPlan: defaultPlan ?? Plan.unlimited.name)
    }
}
