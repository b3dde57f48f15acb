// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import swiftlet_bench

@Suite struct HostProcessTests {
    private let own = HostProcess(pid: ProcessInfo.processInfo.processIdentifier)

    @Test func `a living process has memory, and a name`() {
        #expect(own.residentMB > 1)
        #expect(own.memory.own > 1)
        #expect(!own.name.isEmpty)
    }

    @Test func `processor time grows with work`() {
        let before = own.processorTime
        var sum = 0.0
        let end = Date(timeIntervalSinceNow: 10)
        while own.processorTime <= before, Date() < end { sum += Double.random(in: 0.5...1) }
        #expect(own.processorTime > before)
        #expect(sum > 0)
    }

    @Test func `a process that is not there has nothing`() {
        let nobody = HostProcess(pid: 0x7fff_ffff)
        #expect(nobody.residentMB == 0)
        #expect(nobody.processorTime == 0)
        #expect(nobody.descendants.isEmpty)
        #expect(nobody.name.isEmpty)
    }

    @Test func `a value is found by its whole name alone`() throws {
        let file = FileManager.default.temporaryDirectory.appending(path: "proc-\(UUID().uuidString)")
        try Data("Pss_Anon:  5 kB\nPss:  2048 kB\nmodel name\t: A: B\nbroken line\n".utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let proc = ProcFile(file.path)
        #expect(proc.mebibytes(of: "Pss") == 2)
        #expect(proc.value(of: "model name") == "A: B")
        #expect(proc.value(of: "model") == nil)
        #expect(proc.mebibytes(of: "Private_Dirty") == 0)
        #expect(ProcFile("/nowhere").value(of: "Pss") == nil)
    }
}
