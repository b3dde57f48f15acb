// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOPosix
import SwiftletCore
import SwiftletStore

/// Where the outputs of executions are: small ones in the database, the others in files named by their execution and stream.
struct OutputArchive: Sendable {
    let directory: String
    let store: ExecutionStore
    let budget: OutputBudget

    /// Logs for a new execution.
    func newLogs(for id: ExecutionID, limit: Int) -> [ExecutionStream: OutputLog] {
        ExecutionStream.allCases.reduce(into: [:]) { logs, stream in
            logs[stream] = OutputLog(path: path(id, stream), limit: limit, budget: budget)
        }
    }

    /// Writes down an execution's end, and its outputs unless files hold them.
    ///
    /// - Parameter isInserted: whether the database knows the execution.
    func write(_ record: ExecutionRecord, of handle: ExecutionHandle, isInserted: Bool) async throws {
        // A second attempt may find that the first got as far as this.
        if !isInserted { _ = try await store.insert(record) }
        var outputs: [ExecutionStream: [UInt8]] = [:]
        for stream in ExecutionStream.allCases {
            if let bytes = handle.log(of: stream).inMemory { outputs[stream] = bytes }
        }
        try await store.update(record, outputs: outputs)
    }

    /// What is kept of an execution that is over.
    func handle(of record: ExecutionRecord) async throws -> ExecutionHandle {
        var logs: [ExecutionStream: OutputLog] = [:]
        if record.outputExpiredAt == nil {
            for stream in ExecutionStream.allCases where record.size(of: stream).bytes > 0 {
                logs[stream] = try await log(of: record, stream)
            }
        }
        return ExecutionHandle(record, logs: logs)
    }

    private func log(of record: ExecutionRecord, _ stream: ExecutionStream) async throws -> OutputLog {
        let size = record.size(of: stream)
        if let bytes = try await store.output(of: record.id, stream) { return OutputLog(bytes, dropped: size.dropped) }
        let path = path(record.id, stream)
        let file = try await NIOThreadPool.singleton.runIfActive {
            OutputLog(contentsOf: path, dropped: size.dropped)
        }
        // A file that somebody took away is a loss, and is told as one.
        return file ?? OutputLog([], dropped: size.dropped + size.bytes)
    }

    /// Bytes that an execution left in files; for one whose server ended before it.
    func sizesInFiles(of id: ExecutionID) async throws -> [ExecutionStream: ExecutionRecord.Size] {
        try await NIOThreadPool.singleton.runIfActive {
            ExecutionStream.allCases.reduce(into: [:]) { sizes, stream in
                if let log = OutputLog(contentsOf: path(id, stream)) { sizes[stream] = .init(bytes: log.count) }
            }
        }
    }

    /// Throws the outputs of executions away.
    func expire(_ outputs: [ExecutionStore.KeptOutput], at moment: Date) async throws {
        let ids = outputs.map(\.id)
        try await store.expireOutput(of: ids, at: moment)
        budget.giveBack(outputs.reduce(0) { $0 + $1.bytes })
        try await NIOThreadPool.singleton.runIfActive {
            for id in ids {
                for stream in ExecutionStream.allCases { unlink(path(id, stream)) }
            }
        }
    }

    /// Removes files whose execution is unknown or has expired: a crash between two steps leaves such.
    func removeStrays() async throws {
        let names = try await NIOThreadPool.singleton.runIfActive {
            try FileManager.default.contentsOfDirectory(atPath: directory)
        }
        let ids = names.compactMap { ExecutionID(rawValue: String($0.prefix { $0 != "." })) }
        let known = try await store.known(ids)
        try await NIOThreadPool.singleton.runIfActive {
            for name in names {
                let id = ExecutionID(rawValue: String(name.prefix { $0 != "." }))
                if id.map({ !known.contains($0) }) ?? true { unlink("\(directory)/\(name)") }
            }
        }
    }

    private func path(_ id: ExecutionID, _ stream: ExecutionStream) -> String {
        "\(directory)/\(id).\(stream.rawValue)"
    }
}
