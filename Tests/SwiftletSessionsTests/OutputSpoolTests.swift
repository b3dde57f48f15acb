// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletSessions
import Testing

@Suite struct OutputSpoolTests {
    private func spool(memory: Int = 8, limit: Int = 1_000) -> OutputSpool {
        OutputSpool(directory: NSTemporaryDirectory(), memoryLimit: memory, limit: limit)
    }

    private func contents(_ spool: OutputSpool, chunk: Int = 3) -> [UInt8] {
        var bytes: [UInt8] = []
        while case let piece = spool.read(at: bytes.count, upTo: chunk), !piece.isEmpty { bytes += piece }
        return bytes
    }

    @Test(arguments: [0, 1, 7, 8, 9, 100, 1_000])
    func whatIsWrittenIsReadAcrossMemoryAndFile(count: Int) {
        let spool = spool()
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
        for byte in bytes { spool.append([byte]) }
        #expect(spool.count == count)
        #expect(contents(spool) == bytes)
        #expect(spool.droppedBytes == 0)
    }

    @Test func whatIsOverTheLimitIsCountedAndCut() {
        let spool = spool(limit: 10)
        spool.append(Array(repeating: 1, count: 7)[...])
        spool.append(Array(repeating: 2, count: 7)[...])
        spool.append(Array(repeating: 3, count: 7)[...])
        #expect(contents(spool) == [1, 1, 1, 1, 1, 1, 1, 2, 2, 2])
        #expect(spool.droppedBytes == 11)
    }

    @Test func withoutADirectoryWhatDoesNotFitIntoMemoryIsCounted() {
        let spool = OutputSpool(directory: "/nonexistent", memoryLimit: 4, limit: 100)
        spool.append([1, 2, 3, 4, 5, 6])
        spool.append([7])
        #expect(contents(spool) == [1, 2, 3, 4])
        #expect(spool.droppedBytes == 3)
    }

    @Test func theFileHasNoName() throws {
        let directory = NSTemporaryDirectory() + UUID().uuidString
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let spool = OutputSpool(directory: directory, memoryLimit: 0, limit: 100)
        spool.append([1, 2, 3])
        #expect(spool.count == 3)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory).isEmpty)
    }
}
