// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Logging
import NIOCore
import NIOPosix
import SwiftletTestSupport
import Testing

// The start of a QEMU is internal to its module.
@testable import SwiftletVM

/// Starts of programs: what a child gets, and what a failed start reports and leaves behind.
@Suite(.timeLimit(.minutes(5))) struct ChildProcessTests {
    /// Threads that live as long as the body: a child is killed when the thread that started it ends.
    private func withThreads(_ body: (NIOThreadPool, NIOThreadPool) async throws -> Void) async throws {
        let spawner = NIOThreadPool(numberOfThreads: 1)
        let threads = NIOThreadPool(numberOfThreads: 2)
        spawner.start()
        threads.start()
        do {
            try await body(spawner, threads)
        } catch {
            try await spawner.shutdownGracefully()
            try await threads.shutdownGracefully()
            throw error
        }
        try await spawner.shutdownGracefully()
        try await threads.shutdownGracefully()
    }

    /// A file that has no name any more.
    private func temporaryFile() throws -> Int32 {
        let path = NSTemporaryDirectory() + "/swiftlet-\(UUID().uuidString)"
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        try #require(descriptor >= 0)
        try FileManager.default.removeItem(atPath: path)
        return descriptor
    }

    private func openDescriptors() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
    }

    /// The reason of a start that fails.
    private func reason(_ start: () async throws -> Void) async throws -> String {
        let error = try #require(await #expect(throws: MicroVMError.self) { try await start() })
        guard case .cannotStart(let reason) = error else { throw error }
        return reason
    }

    @Test func aChildHasItsDescriptorsAloneUnderALimitThatItsParentExceeds() async throws {
        try await withThreads { spawner, threads in
            // As many as a busy server has open; the child's limit lies below.
            let busy = (0..<40).map { _ in open("/dev/null", O_RDONLY) }
            defer { busy.forEach { close($0) } }
            try #require(!busy.contains(-1))
            let output = open(
                NSTemporaryDirectory() + "/swiftlet-\(UUID().uuidString)",
                O_RDWR | O_CREAT | O_EXCL,
                0o600
            )
            try #require(output >= 0)
            defer { close(output) }
            var limits = ChildProcess.Limits()
            limits.descriptors = 16
            let child = try await ChildProcess.spawn(
                "/bin/sh",
                arguments: ["-c", "ls /proc/$$/fd; ulimit -n"],
                environment: ["PATH": "/usr/bin:/bin"],
                descriptors: [0, output, output, 0, output, 0, output],
                limits: limits,
                on: spawner
            )
            #expect(try await child.wait(on: threads) == .exited(0))
            var bytes = [UInt8](repeating: 0, count: 200)
            let count = pread(output, &bytes, bytes.count, 0)
            #expect(String(decoding: bytes.prefix(max(0, count)), as: UTF8.self) == "0\n1\n2\n3\n4\n5\n6\n16\n")
        }
    }

    @Test(arguments: [("exit 3", ChildProcess.Status.exited(3)), ("kill -9 $$", .signaled(9)), ("true", .exited(0))])
    func theEndOfAProgramIsReported(script: String, status: ChildProcess.Status) async throws {
        try await withThreads { spawner, threads in
            let outcome = try await ShortCommand("/bin/sh", ["-c", script]).run(spawner: spawner, threads: threads)
            #expect(outcome.status == status)
        }
    }

    @Test func aProgramIsKilledAtItsTimeLimit() async throws {
        try await withThreads { spawner, threads in
            let command = ShortCommand("/bin/sleep", ["60"])
            let outcome = try await command.run(within: .milliseconds(50), spawner: spawner, threads: threads)
            #expect(outcome.status == .signaled(9))
        }
    }

    @Test func theKernelKillsAQEMURatherThanTheServer() async throws {
        try await withThreads { spawner, threads in
            let output = try temporaryFile()
            defer { close(output) }
            var limits = ChildProcess.Limits()
            limits.oomScoreAdjustment = min(HostMemory.ownOOMScoreAdjustment + 500, 1_000)
            let child = try await ChildProcess.spawn(
                "/bin/cat",
                arguments: ["/proc/self/oom_score_adj"],
                descriptors: [0, output, output],
                limits: limits,
                on: spawner
            )
            #expect(try await child.wait(on: threads) == .exited(0))
            var bytes = [UInt8](repeating: 0, count: 20)
            let count = pread(output, &bytes, bytes.count, 0)
            let value = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
            #expect(Int(value.dropLast()) == limits.oomScoreAdjustment)
            #expect(try #require(limits.oomScoreAdjustment) > HostMemory.ownOOMScoreAdjustment)
        }
    }

    @Test func aMissingProgramIsReportedAsTheStepThatFailed() async throws {
        try await withThreads { spawner, _ in
            let reason = try await reason {
                _ = try await ChildProcess.spawn("/missing", arguments: [], descriptors: [0, 1, 2], on: spawner)
            }
            #expect(reason == "/missing: execve: No such file or directory")
        }
    }

    @Test(arguments: [
        // More than the child's limit, and more than any child may be given.
        (descriptors: 7, limit: UInt64(5), reason: "Invalid argument"),
        (descriptors: 65, limit: 0, reason: "Too many open files"),
    ])
    func tooManyDescriptorsAreReportedAsTheStepThatFailed(
        descriptors: Int,
        limit: UInt64,
        reason expected: String
    ) async throws {
        try await withThreads { spawner, _ in
            var limits = ChildProcess.Limits()
            limits.descriptors = limit == 0 ? nil : limit
            let reason = try await reason { [limits] in
                _ = try await ChildProcess.spawn(
                    "/bin/true",
                    arguments: [],
                    descriptors: Array(repeating: 0, count: descriptors),
                    limits: limits,
                    on: spawner
                )
            }
            #expect(reason == "/bin/true: placing its descriptors: \(expected)")
        }
    }

    @Test func aFailureToReachACgroupIsReportedAsTheStepThatFailed() async throws {
        try await withThreads { spawner, _ in
            var limits = ChildProcess.Limits()
            limits.cgroups = [-1]
            let reason = try await reason { [limits] in
                _ = try await ChildProcess.spawn(
                    "/bin/true",
                    arguments: [],
                    descriptors: [0],
                    limits: limits,
                    on: spawner
                )
            }
            #expect(reason == "/bin/true: entering its cgroup: Bad file descriptor")
        }
    }

    /// Starts beside those of this test open and close descriptors too, but not a hundred.
    private func expectNoDescriptorLeak(_ attempt: () async throws -> Void) async throws {
        let before = try openDescriptors()
        for _ in 0..<100 { try await attempt() }
        #expect(try openDescriptors() < before + 80)
    }

    @Test func failedShortCommandsCloseTheirSockets() async throws {
        try await withThreads { spawner, threads in
            try await expectNoDescriptorLeak {
                await #expect(throws: MicroVMError.self) {
                    _ = try await ShortCommand("/missing", []).run(spawner: spawner, threads: threads)
                }
            }
        }
    }

    @Test(arguments: [
        // Before QEMU runs, and when it runs and does not get what it is sent.
        (program: "/missing", stateOutput: Int32?.none),
        (program: "/bin/cat", stateOutput: Int32(-1)),
    ])
    func failedStartsOfQEMUCloseTheirSocketsAndMemory(program: String, stateOutput: Int32?) async throws {
        let directory = NSTemporaryDirectory() + "swiftlet-start-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try Data().write(to: URL(filePath: "\(directory)/empty.qcow2"))
        try await withThreads { spawner, threads in
            let resources = EngineContext.unjailed(program, directory: directory, spawner: spawner, threads: threads)
            try await expectNoDescriptorLeak {
                let memory = try SealedMemory.make(size: 1 << 20)
                let launch = QEMULaunch(
                    shape: VMShape(memoryMB: 128, vcpuCount: 1),
                    start: .bootIntoFile,
                    directory: VMDirectory(parent: directory, id: "machine-1"),
                    memory: memory,
                    stateOutput: stateOutput
                )
                await #expect(throws: MicroVMError.self) {
                    _ = try await QEMUMachine.start(launch, resources: resources, logger: Logger(label: "test"))
                }
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["empty.qcow2"])
        }
    }
}

extension EngineContext {
    /// What machines need, with any program in QEMU's place.
    static func unjailed(
        _ program: String,
        directory: String,
        spawner: NIOThreadPool,
        threads: NIOThreadPool
    ) -> EngineContext {
        let version = QEMUVersion(major: 7, minor: 2)
        return EngineContext(
            qemu: QEMUBuild(executable: program, version: version, line: ""),
            platform: QEMUPlatform(accelerator: .tcg, version: version, tscKHz: 0),
            jail: .none,
            cgroups: nil,
            mayRenice: false,
            oomScoreAdjustment: 500,
            imageDirectory: directory,
            kernel: "kernel",
            initramfs: "initramfs",
            emptyDisk: "\(directory)/empty.qcow2",
            directory: directory,
            bootTimeout: .seconds(5),
            diskLimit: 1 << 20,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            spawner: spawner,
            blocking: threads
        )
    }
}
