// SPDX-License-Identifier: Apache-2.0

import SwiftletCore
import SwiftletJSON

/// The fields of an execution besides its output.
enum ExecutionFields {
    /// The fields of the answer to the call that ran it: `exit_code` is always a number, -1 when there is none.
    static func ofResult(_ record: ExecutionRecord) -> [JSONValue.Field] {
        let fields: JSONValue = [
            "exit_code": .integer(record.exitCode ?? -1),
            "execution_time": .number(record.executionTime),
            "cpu_time": .number(record.cpuTime),
            "created_at": .init(record.createdAt),
            "session_id": .string(record.session.rawValue),
            "execution_id": .string(record.id.rawValue),
            "language": .string(record.language),
            "vm_id": .init(record.vmID),
            "vm_started_at": .init(record.vmStartedAt),
            "outcome": .string(record.state.rawValue),
            "signal": record.signal.map { .integer($0) } ?? .null,
            "timed_out": .bool(record.state == .timedOut),
            "state_lost": .bool(record.stateLost),
            "note": .init(record.note),
            "restore": record.restore.map(json) ?? .null,
            "stdout_bytes": .integer(record.size(of: .stdout).bytes),
            "stderr_bytes": .integer(record.size(of: .stderr).bytes),
            "stdout_dropped_bytes": .integer(record.size(of: .stdout).dropped),
            "stderr_dropped_bytes": .integer(record.size(of: .stderr).dropped),
            "results_dropped": .integer(record.size(of: .results).dropped),
        ]
        return fields.fields
    }

    /// The fields of its record: `exit_code` is null until there is an end.
    static func ofRecord(_ record: ExecutionRecord) -> [JSONValue.Field] {
        let head: JSONValue = [
            "id": .string(record.id.rawValue),
            "task_id": .string(record.id.rawValue),
            "status": .string(record.state.rawValue),
            "is_complete": .bool(record.state.isFinal),
            "mode": .string(record.mode.rawValue),
            "timeout": .init(record.timeout),
            "started_at": .init(record.startedAt),
            "ended_at": .init(record.endedAt),
            "output_expired": .bool(record.outputExpiredAt != nil),
        ]
        let rest = ofResult(record).map { field in
            field.name == "exit_code" && !record.state.isFinal ? .init(name: field.name, value: .null) : field
        }
        return head.fields + rest
    }

    private static func json(_ restore: RestoreRecord) -> JSONValue {
        [
            "generation": .string(restore.generation),
            "origin": .string(restore.origin),
            "template": .init(restore.template),
            "confirmed": .array(restore.confirmed.map { .string($0) }),
            "milliseconds": .integer(restore.milliseconds),
        ]
    }
}

extension JSONValue {
    /// An object's fields; none of any other value.
    var fields: [Field] {
        if case .object(let fields) = self { fields } else { [] }
    }
}
