// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Testing

// What is read of /proc is internal to its module.
@testable import SwiftletVM

@Suite struct HostMemoryTests {
    @Test func theMemoryOfTheMachineIsReadInMebibytes() throws {
        let available = try HostMemory.available()
        #expect(available > 16 && available < HostMemory.total * 2)
        #expect(HostMemory.total <= Int(ProcessInfo.processInfo.physicalMemory) >> 20)
    }

    @Test func memoryThatAProcessHoldsAloneIsCountedAndSharedMemoryIsNot() throws {
        let before = try #require(HostMemory.held(by: getpid()))
        let size = 256 << 20
        let shared = try #require(mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
        try #require(shared != MAP_FAILED)
        defer { munmap(shared, size) }
        memset(shared, 1, size)
        // Other tests of this process take and free some.
        #expect(abs(try #require(HostMemory.held(by: getpid())) - before) < 128)
        let own = try #require(mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        try #require(own != MAP_FAILED)
        defer { munmap(own, size) }
        memset(own, 1, size)
        #expect(abs(try #require(HostMemory.held(by: getpid())) - before - 256) < 128)
    }

    @Test func aProcessThatHasEndedHoldsNothing() {
        #expect(HostMemory.held(by: .max) == nil)
    }
}
