// SPDX-License-Identifier: Apache-2.0

package import Foundation
package import SwiftletCore
import SwiftletStore

/// The plans that a server knows.
package struct PlanCatalog: Equatable, Sendable {
    /// The plan of a new user when none is named.
    package let defaultPlan: Plan
    private let plans: [String: Plan]
    /// The plans of the operator's file, which are taken at their word; the built-in ones say how much there is at most.
    package let ofTheOperator: [Plan]

    /// The built-in plans `free`, `pro` and `unlimited`; the last is a new user's.
    package static let standard = PlanCatalog(plans: builtIn, defaultPlan: .unlimited)

    private static var builtIn: [String: Plan] {
        [Plan.free, .pro, .unlimited].reduce(into: [:]) { $0[$1.name] = $1 }
    }

    private init(plans: [String: Plan], defaultPlan: Plan, ofTheOperator: [Plan] = []) {
        self.plans = plans
        self.ofTheOperator = ofTheOperator
        self.defaultPlan = defaultPlan
    }

    /// The built-in plans and those of a JSON object `{"name": {"requestsPerMinute": 60, ...}}`, which count first.
    ///
    /// - Throws: `StoreError` with the problem.
    package init(json: Data?, defaultPlan name: String = Plan.unlimited.name) throws {
        var plans = Self.builtIn
        var own: [Plan] = []
        if let json {
            guard let texts = try? JSONDecoder().decode([String: [String: PlanReader.Field]].self, from: json) else {
                throw StoreError("The plans must be a JSON object of objects: {\"team\": {\"requestsPerMinute\": 600}}")
            }
            for (name, fields) in texts.sorted(by: { $0.key < $1.key }) {
                let plan = try PlanReader(name: name, fields: fields).plan()
                plans[name] = plan
                own.append(plan)
            }
        }
        guard let plan = plans[name] else {
            throw StoreError("There is no plan '\(name)'; there are: \(plans.keys.sorted().joined(separator: ", "))")
        }
        self.init(plans: plans, defaultPlan: plan, ofTheOperator: own)
    }

    /// The plan's names, sorted.
    package var names: [String] { plans.keys.sorted() }

    /// - Throws: `StoreError` with the names that there are.
    package func plan(named name: String) throws -> Plan {
        guard let plan = plans[name] else {
            throw StoreError("There is no plan '\(name)'; there are: \(names.joined(separator: ", "))")
        }
        return plan
    }
}

/// Reads one plan; a limit that is not named is none.
private struct PlanReader {
    enum Field: Decodable {
        case number(Int)
        case flag(Bool)
        case null
        case other

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if container.decodeNil() {
                self = .null
            } else if let number = try? container.decode(Int.self) {
                self = .number(number)
            } else if let flag = try? container.decode(Bool.self) {
                self = .flag(flag)
            } else {
                self = .other
            }
        }
    }

    private static let known: Set = [
        "requestsPerMinute", "requestBurst", "newVmsPerMinute", "newVmBurst", "concurrentVms", "concurrentExecutions",
        "vmLifetimeSeconds", "memoryMb", "vcpuCount", "diskMb", "outputLimitBytes", "egress",
    ]

    let name: String
    let fields: [String: Field]

    func plan() throws -> Plan {
        guard !name.isEmpty, name.utf8.count <= 64 else { throw StoreError("A plan's name has 1 to 64 bytes") }
        if let unknown = fields.keys.filter({ !Self.known.contains($0) }).sorted().first {
            let known = Self.known.sorted().joined(separator: ", ")
            throw StoreError("The plan \(name) has '\(unknown)', which is none of: \(known)")
        }
        var plan = Plan(name: name)
        plan.requests = try rate("requestsPerMinute", burst: "requestBurst")
        plan.newVMs = try rate("newVmsPerMinute", burst: "newVmBurst")
        plan.concurrentVMs = try number("concurrentVms", in: 0...100_000)
        plan.concurrentExecutions = try number("concurrentExecutions", in: 0...100_000)
        plan.vmLifetimeSeconds = try number("vmLifetimeSeconds", in: Limits.vmLifetimeSeconds)
        plan.memoryMB = try number("memoryMb", in: Limits.memoryMB)
        plan.vcpuCount = try number("vcpuCount", oneOf: Limits.vcpuCounts)
        plan.diskMB = try number("diskMb", in: Limits.diskMB)
        plan.outputLimitBytes = try number("outputLimitBytes", in: Limits.outputBytes)
        if let egress = fields["egress"] {
            guard case .flag(let allowed) = egress else {
                throw StoreError("'egress' of the plan \(name) must be true or false")
            }
            plan.allowsEgress = allowed
        }
        return plan
    }

    private func rate(_ rate: String, burst: String) throws -> Plan.Rate? {
        let size = try number(burst, in: 1...1_000_000)
        guard let perMinute = try number(rate, in: 1...1_000_000) else {
            guard size == nil else { throw StoreError("The plan \(name) has '\(burst)' without '\(rate)'") }
            return nil
        }
        return Plan.Rate(perMinute: perMinute, burst: size ?? perMinute)
    }

    private func number(_ field: String, in range: ClosedRange<Int>) throws -> Int? {
        try number(field, "from \(range.lowerBound) to \(range.upperBound)") { range.contains($0) }
    }

    private func number(_ field: String, oneOf values: [Int]) throws -> Int? {
        try number(field, "of \(values.map(String.init).joined(separator: ", "))") { values.contains($0) }
    }

    private func number(_ field: String, _ allowed: String, isAllowed: (Int) -> Bool) throws -> Int? {
        guard let value = fields[field] else { return nil }
        if case .null = value { return nil }
        guard case .number(let number) = value, isAllowed(number) else {
            throw StoreError("'\(field)' of the plan \(name) must be a number \(allowed)")
        }
        return number
    }
}
