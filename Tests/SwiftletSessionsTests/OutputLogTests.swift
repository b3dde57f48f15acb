// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletSessions
import Testing

@Suite struct OutputLogTests {
    private func withPath(_ body: (String) async throws -> Void) async rethrows {
        let path = NSTemporaryDirectory() + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: path) }
        try await body(path)
    }

    private func contents(_ log: OutputLog, chunk: Int = 3) -> [UInt8] {
        var bytes: [UInt8] = []
        while case let piece = log.read(at: bytes.count, upTo: chunk), !piece.isEmpty { bytes += piece }
        return bytes
    }

    @Test(arguments: [0, 1, 7, 8, 9, 100, 1_000])
    func whatIsWrittenIsReadFromMemoryOrFile(count: Int) async throws {
        try await withPath { path in
            let log = OutputLog(path: path, memoryLimit: 8, limit: 1_000)
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
            for byte in bytes { try await log.append([byte]) }
            #expect(log.count == count)
            #expect(contents(log) == bytes)
            #expect(log.droppedBytes == 0)
            #expect(FileManager.default.fileExists(atPath: path) == (count > 8))
        }
    }

    @Test func whatIsOverTheLimitIsCountedAndCut() async throws {
        try await withPath { path in
            let log = OutputLog(path: path, memoryLimit: 8, limit: 10)
            try await log.append(Array(repeating: 1, count: 7)[...])
            try await log.append(Array(repeating: 2, count: 7)[...])
            try await log.append(Array(repeating: 3, count: 7)[...])
            #expect(contents(log) == [1, 1, 1, 1, 1, 1, 1, 2, 2, 2])
            #expect(log.droppedBytes == 11)
        }
    }

    @Test func withoutADirectoryWhatDoesNotFitIntoMemoryIsCounted() async throws {
        let log = OutputLog(path: "/nonexistent/file", memoryLimit: 4, limit: 100)
        try await log.append([1, 2, 3, 4, 5, 6])
        try await log.append([7])
        #expect(contents(log) == [1, 2, 3, 4])
        #expect(log.droppedBytes == 3)
    }

    @Test func whatIsPersistedOutlivesTheLogAndIsReadAgain() async throws {
        try await withPath { path in
            var log: OutputLog? = OutputLog(path: path, memoryLimit: 100, limit: 1_000)
            try await log?.append([1, 2, 3])
            try await log?.persist()
            #expect(log?.inMemory == nil)
            try await log?.append([4, 5])
            #expect(log.map { contents($0) } == [1, 2, 3, 4, 5])
            log = nil
            let again = try #require(OutputLog(contentsOf: path, dropped: 7))
            #expect(contents(again) == [1, 2, 3, 4, 5])
            #expect(again.droppedBytes == 7)
        }
    }

    @Test func anEmptyLogMakesNoFile() async throws {
        try await withPath { path in
            try await OutputLog(path: path, limit: 10).persist()
            #expect(!FileManager.default.fileExists(atPath: path))
            #expect(OutputLog(contentsOf: path) == nil)
        }
    }

    @Test func aViewStaysAsItWas() async throws {
        let log = OutputLog(path: "/nonexistent/file", limit: 100)
        try await log.append([1, 2, 3])
        let view = OutputView(log)
        try await log.append([4])
        #expect(view.count == 3)
        #expect(view.read(at: 1, upTo: 10) == [2, 3])
        #expect(view.read(at: 3, upTo: 10).isEmpty)
    }

    @Test(arguments: [8, 100])
    func whatMustBeWholeIsKeptWholeOrNotAtAll(memory: Int) async throws {
        try await withPath { path in
            let log = OutputLog(path: path, memoryLimit: memory, limit: 10)
            var isKept: [Bool] = []
            for bytes: ClosedRange<UInt8> in [1...4, 5...11, 12...17] {
                isKept.append(try await log.appendWhole(Array(bytes)))
            }
            #expect(isKept == [true, false, true])
            #expect(contents(log) == [1, 2, 3, 4, 12, 13, 14, 15, 16, 17])
            #expect(log.droppedBytes == 0)
        }
    }

    @Test func whatFindsNoFileIsNotKeptInPart() async throws {
        let log = OutputLog(path: "/nonexistent/file", memoryLimit: 4, limit: 100)
        #expect(try await log.appendWhole([1, 2, 3, 4, 5]) == false)
        #expect(log.count == 0)
        #expect(try await log.appendWhole([1, 2, 3]) == true)
    }

    @Test func allLogsTogetherKeepNoMoreThanTheirBudget() async throws {
        try await withPath { path in
            let budget = OutputBudget(limit: 100)
            let first = OutputLog(path: path, memoryLimit: 1_000, limit: 1_000, budget: budget)
            let second = OutputLog(path: path + "2", memoryLimit: 10, limit: 1_000, budget: budget)
            defer { try? FileManager.default.removeItem(atPath: path + "2") }
            try await first.append([UInt8](repeating: 1, count: 90)[...])
            #expect(budget.excess == 0)
            try await second.append([UInt8](repeating: 2, count: 90)[...])
            // A quarter more than the limit is the end.
            #expect((first.count, second.count) == (90, 35))
            #expect(second.droppedBytes == 55)
            #expect(budget.excess == 25)
            #expect(try await second.appendWhole([1]) == false)
        }
    }

    @Test func readersSeeEveryByteInOrderWhileItIsMovedIntoTheFile() async throws {
        try await withPath { path in
            let log = OutputLog(path: path, memoryLimit: 1 << 10, limit: 1 << 20)
            let bytes = (0..<(1 << 16)).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    for start in stride(from: 0, to: bytes.count, by: 97) {
                        try await log.append(bytes[start..<min(start + 97, bytes.count)])
                    }
                }
                group.addTask {
                    for _ in 0..<50 {
                        try await log.persist()
                        await Task.yield()
                    }
                }
                for _ in 0..<4 {
                    group.addTask {
                        var seen: [UInt8] = []
                        while seen.count < bytes.count {
                            seen += log.read(at: seen.count, upTo: 4_096)
                            await Task.yield()
                        }
                        #expect(seen == bytes)
                    }
                }
                try await group.waitForAll()
            }
            #expect(log.droppedBytes == 0)
        }
    }
}
