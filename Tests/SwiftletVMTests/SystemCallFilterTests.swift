// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletVM
import Testing

@Suite struct SystemCallTests {
    @Test(arguments: [
        ("read", 0), ("socket", 41), ("execve", 59), ("exit_group", 231), ("statx", 332), ("rseq", 334),
        ("pidfd_send_signal", 424),
        ("io_uring_setup", 425), ("clone3", 435), ("faccessat2", 439), ("epoll_pwait2", 441),
        ("set_mempolicy_home_node", 450),
    ])
    func aCallHasItsNumber(name: String, number: Int) {
        #expect(SystemCall(named: name)?.number == number)
        #expect(SystemCall(number: number).description == "\(name) (\(number))")
    }

    @Test func whatIsNoCallHasNoNumberAndANumberWithoutANameIsShown() {
        #expect(SystemCall(named: "launch") == nil)
        #expect(SystemCall(number: 400).description == "400")
    }
}

@Suite struct KernelLogTests {
    private func withLog(_ messages: String?, _ audit: String?, _ body: (KernelLog) -> Void) throws {
        let directory = NSTemporaryDirectory() + "swiftlet-log-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        for (name, text) in [("kmsg", messages), ("audit.log", audit)] {
            try text?.write(toFile: "\(directory)/\(name)", atomically: true, encoding: .utf8)
        }
        body(KernelLog(messages: "\(directory)/kmsg", audit: "\(directory)/audit.log"))
    }

    private func record(_ type: String, pid: Int, call: Int) -> String {
        "\(type) audit(1795694900.699:2): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=\(pid) comm=\"qemu-system-x86\" "
            + "exe=\"/usr/bin/qemu-system-x86_64\" sig=31 arch=c000003e syscall=\(call) compat=0 ip=0x7fe83d420353 code=0x80000000\n"
    }

    @Test func theCallIsTheOneOfTheProcess() throws {
        try withLog("5,1,2,-;audit: " + record("type=1326", pid: 99, call: 41), nil) { log in
            #expect(log.forbiddenCall(of: 99) == SystemCall(named: "socket"))
            #expect(log.forbiddenCall(of: 9) == nil)
            #expect(log.forbiddenCall(of: 999) == nil)
        }
    }

    @Test func theAuditDaemonsFileCountsTooAndTheLastRecordOfAReusedNumber() throws {
        let text =
            [41, 59].map { record("type=SECCOMP msg=", pid: 7, call: $0) }.joined()
            + record("type=SYSCALL msg=", pid: 7, call: 1)
        try withLog(nil, text) { #expect($0.forbiddenCall(of: 7) == SystemCall(named: "execve")) }
    }

    @Test func withoutALogNothingIsTold() throws {
        try withLog(nil, nil) { #expect($0.forbiddenCall(of: 7) == nil) }
        try withLog("garbage", "syscall= pid=7 type=1326 syscall=x") { #expect($0.forbiddenCall(of: 7) == nil) }
        #expect("\(VMEnd.forbiddenSystemCall(nil))".contains("cannot read"))
        #expect("\(VMEnd.forbiddenSystemCall(SystemCall(number: 41)))".contains("socket (41)"))
    }
}

@Suite struct SystemCallFilterTests {
    private static let x8664: UInt32 = 0xc000_003e

    private enum Answer: Equatable {
        case allowed
        case missing
        case killed
    }

    /// What the kernel would do: runs the program as classic BPF.
    private func answer(
        _ filter: SystemCallFilter,
        _ number: Int,
        first: UInt32 = 0,
        second: UInt32 = 0,
        architecture: UInt32 = x8664
    ) throws -> Answer {
        let program = filter.program
        var accumulator: UInt32 = 0
        var place = 0
        while true {
            try #require(place < program.count)
            let step = program[place]
            place += 1
            switch step.code {
            case 0x20:
                accumulator = try #require([0: UInt32(number), 4: architecture, 16: first, 24: second][step.operand])
            case 0x15: place += Int(accumulator == step.operand ? step.whenTrue : step.whenFalse)
            case 0x35: place += Int(accumulator >= step.operand ? step.whenTrue : step.whenFalse)
            case 0x45: place += Int(accumulator & step.operand != 0 ? step.whenTrue : step.whenFalse)
            case 0x54: accumulator &= step.operand
            case 0x06:
                return try #require(
                    [0x7fff_0000: Answer.allowed, 0x8000_0000: .killed, 0x0005_0026: .missing][step.operand]
                )
            default:
                Issue.record("\(step.code) is no instruction of the filter's")
                return .killed
            }
        }
    }

    private func answer(_ name: String, first: UInt32 = 0, second: UInt32 = 0, kvm: Bool = false) throws -> Answer {
        let call = try #require(SystemCall(named: name))
        return try answer(SystemCallFilter(usesKVM: kvm), call.number, first: first, second: second)
    }

    @Test func whatIsOnTheListIsAllowedAndAllElseIsTheEnd() throws {
        let allowed = Set(SystemCallFilter.allowed.map(\.number))
        #expect(allowed.count == SystemCallFilter.allowed.count)
        // A name that is none would have been left out of it.
        #expect(allowed.count == 121)
        let special = Set(
            try ["execve", "clone", "ioctl", "clone3", "io_uring_setup"].map {
                try #require(SystemCall(named: $0)).number
            }
        )
        for number in 0..<600 where !special.contains(number) {
            let expected: Answer = allowed.contains(number) ? .allowed : .killed
            #expect(try answer(SystemCallFilter(usesKVM: true), number) == expected, "\(SystemCall(number: number))")
        }
    }

    @Test(arguments: [
        "socket", "connect", "bind", "fork", "vfork", "execveat", "ptrace", "unshare", "setns", "mount", "bpf",
        "userfaultfd", "keyctl",
        "perf_event_open", "process_vm_writev", "kill", "setuid", "chroot", "pivot_root", "io_uring_enter", "unlink",
        "rename", "setrlimit",
    ])
    func whatAnEscapeWouldNeedIsTheEnd(name: String) throws {
        #expect(try answer(name) == .killed)
        #expect(try answer(name, kvm: true) == .killed)
    }

    @Test func whatTheFilterCannotSeeThroughSeemsToBeMissing() throws {
        #expect(try answer("io_uring_setup") == .missing)
        #expect(try answer("clone3") == .missing)
    }

    @Test func threadsAreAllowedAndProcessesAreNot() throws {
        // As glibc makes a thread, and as it forks.
        #expect(try answer("clone", first: 0x3d_0f00) == .allowed)
        #expect(try answer("clone", first: 0x0120_0011) == .killed)
    }

    @Test func onlyKVMsRequestsReachADevice() throws {
        let run: UInt32 = 0xae80
        #expect(try answer("ioctl", second: run, kvm: true) == .allowed)
        #expect(try answer("ioctl", second: run) == .killed)
        // TIOCSTI, which types into a terminal, and one of another device of the same number.
        #expect(try answer("ioctl", second: 0x5412, kvm: true) == .killed)
        #expect(try answer("ioctl", second: 0x4008_af80, kvm: true) == .killed)
        #expect(try answer("ioctl", second: 0x5401) == .allowed)
    }

    @Test func otherInterfacesOfTheKernelAreClosed() throws {
        let filter = SystemCallFilter(usesKVM: true)
        #expect(try answer(filter, 3, architecture: 0x4000_0003) == .killed)
        #expect(try answer(filter, 0x4000_0000) == .killed)
        #expect(try answer(filter, 0x4000_0000 | 1) == .killed)
    }

    @Test func theProgramIsWhatTheKernelTakes() {
        let filter = SystemCallFilter(usesKVM: true)
        #expect(filter.bytes.count == 8 * filter.program.count)
        // The kernel's BPF_MAXINSNS.
        #expect(filter.program.count <= 4_096)
        #expect(Array(filter.bytes.prefix(8)) == [0x20, 0, 0, 0, 4, 0, 0, 0])
    }
}
