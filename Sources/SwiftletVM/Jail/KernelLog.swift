// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc

/// What the kernel wrote down of processes that it killed for a system call. Readable by root, where nobody has hidden it.
package struct KernelLog: Sendable {
    /// Where the kernel's own messages are; see the kernel's Documentation/ABI/testing/dev-kmsg.
    private let messages: String
    /// Where the audit daemon writes, which takes them away from there.
    private let audit: String

    package init(messages: String = "/dev/kmsg", audit: String = "/var/log/audit/audit.log") {
        self.messages = messages
        self.audit = audit
    }

    /// The call for which a process was killed, as far as the log tells. Blocks.
    package func forbiddenCall(of process: Int32) -> SystemCall? {
        let records = kernelRecords() + (tail(of: audit)?.split(separator: "\n").map(String.init) ?? [])
        return records.last { Self.isSeccomp($0, of: process) }.flatMap(Self.call)
    }

    /// Format: `audit: type=1326 audit(...): ... pid=99 comm="..." ... sig=31 arch=c000003e syscall=41 ...`; `type=SECCOMP msg=audit` in the
    /// daemon's file.
    private static func isSeccomp(_ record: String, of process: pid_t) -> Bool {
        (record.contains("type=1326") || record.contains("type=SECCOMP")) && record.contains(" pid=\(process) ")
    }

    private static func call(in record: String) -> SystemCall? {
        guard let found = record.range(of: " syscall=") else { return nil }
        return Int(record[found.upperBound...].prefix { $0.isNumber }).map(SystemCall.init(number:))
    }

    private func kernelRecords() -> [String] {
        let file = open(messages, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard file >= 0 else { return [] }
        defer { close(file) }
        var records: [String] = []
        var record = [UInt8](repeating: 0, count: 8_192)
        while true {
            let count = read(file, &record, record.count)
            // EPIPE: older records were overwritten meanwhile, and the next read goes on behind them.
            if count < 0, errno == EPIPE || errno == EINTR { continue }
            guard count > 0 else { return records }
            records.append(String(decoding: record.prefix(count), as: UTF8.self))
        }
    }

    private func tail(of path: String) -> String? {
        guard let file = FileHandle(forReadingAtPath: path) else { return nil }
        defer { try? file.close() }
        guard let size = try? file.seekToEnd(), (try? file.seek(toOffset: size - min(size, 256 << 10))) != nil,
            let bytes = try? file.readToEnd()
        else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }
}
