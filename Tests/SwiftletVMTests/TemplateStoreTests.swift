// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import SwiftletVM
import Testing

@Suite struct TemplateStoreTests {
    private let directory = NSTemporaryDirectory() + "swiftlet-templates-\(UUID().uuidString)"
    private let identity = TemplateIdentity(
        image: "minimal-1",
        imageDigests: ["rootfs.ext4": "00"],
        initramfs: "initramfs-1.cpio",
        shape: VMShape(memoryMB: 1, vcpuCount: 1),
        accelerator: .tcg,
        qemu: "QEMU 7",
        processor: "A processor",
        arguments: ["-M", "microvm"]
    )

    private func built(_ store: TemplateStore, tscKHz: UInt64 = 2_000_000) throws -> Template {
        let work = try store.makeWorkDirectory()
        let memory = try SealedMemory.make(size: 1 << 20)
        #expect(pwrite(memory.descriptor, "hello", 5, 4_096) == 5)
        try memory.seal()
        try memory.save("\(work)/memory")
        for name in ["state", "disk.qcow2"] { try Data(name.utf8).write(to: URL(filePath: "\(work)/\(name)")) }
        return try store.publish(work, identity: identity, tscKHz: tscKHz)
    }

    private func withStore(_ body: (TemplateStore) throws -> Void) throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try body(TemplateStore(directory: directory))
    }

    @Test func aPublishedTemplateIsLoadedAsItWasSaved() throws {
        try withStore { store in
            #expect(store.load(identity, tscKHz: 2_000_000) { Issue.record("\($0)") } == nil)
            let template = try built(store)
            let found = try #require(store.load(identity, tscKHz: 2_000_300) { Issue.record("\($0)") })
            #expect(found.name == template.name)
            #expect(store.list().map(\.name) == [template.name])
            let memory = try SealedMemory.load(found.memory)
            var bytes = [UInt8](repeating: 0, count: 5)
            #expect(pread(memory.descriptor, &bytes, 5, 4_096) == 5)
            #expect(bytes == Array("hello".utf8))
            #expect(memory.size == 1 << 20)
        }
    }

    @Test func aSealedMemoryCannotBeChangedByAnybody() throws {
        try withStore { store in
            let memory = try SealedMemory.load(try built(store).memory)
            #expect(pwrite(memory.descriptor, "x", 1, 0) == -1 && errno == EPERM)
            #expect(ftruncate(memory.descriptor, 0) == -1 && errno == EPERM)
            // As QEMU opens it: by its path, for reading and writing.
            let again = open("/proc/self/fd/\(memory.descriptor)", O_RDWR)
            try #require(again >= 0)
            defer { close(again) }
            #expect(pwrite(again, "x", 1, 0) == -1 && errno == EPERM)
            #expect(mmap(nil, 4_096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) == MAP_FAILED)
            #expect(mmap(nil, 4_096, PROT_READ | PROT_WRITE, MAP_PRIVATE, again, 0) != MAP_FAILED)
        }
    }

    private static let damages: [(String, @Sendable (Template) throws -> Void)] = [
        ("manifest", { try Data("{".utf8).write(to: URL(filePath: "\($0.directory)/manifest.json")) }),
        ("manifest", { try FileManager.default.removeItem(atPath: "\($0.directory)/manifest.json") }),
        ("memory", { #expect(truncate($0.memory, 1_000) == 0) }),
        ("memory", { try FileManager.default.removeItem(atPath: $0.memory) }),
        ("state", { try Data("other".utf8).write(to: URL(filePath: $0.state)) }),
        ("disk", { try Data("other".utf8).write(to: URL(filePath: $0.disk)) }),
        ("missing", { try FileManager.default.removeItem(atPath: $0.disk) }),
    ]

    @Test(arguments: 0..<damages.count)
    func aDamagedTemplateIsRemovedAndNeverServed(number: Int) throws {
        try withStore { store in
            let template = try built(store)
            try Self.damages[number].1(template)
            var reasons: [String] = []
            #expect(store.load(identity, tscKHz: 2_000_000) { reasons.append($0) } == nil)
            #expect(reasons.count == 1)
            #expect(reasons.first?.contains(Self.damages[number].0) == true, "\(reasons)")
            #expect(!FileManager.default.fileExists(atPath: template.directory))
        }
    }

    @Test func aForeignTemplateIsNotServed() throws {
        try withStore { store in
            let template = try built(store)
            // Somebody's template under our template's name.
            let path = "\(template.directory)/manifest.json"
            let text = try String(contentsOfFile: path, encoding: .utf8)
            try text.replacingOccurrences(of: "QEMU 7", with: "QEMU 8").write(
                toFile: path,
                atomically: true,
                encoding: .utf8
            )
            var reasons: [String] = []
            #expect(store.load(identity, tscKHz: 2_000_000) { reasons.append($0) } == nil)
            #expect(reasons == ["it was built for something else"])
        }
    }

    @Test func aTemplateOfAProcessorWithAnotherClockIsNotServed() throws {
        try withStore { store in
            let template = try built(store)
            #expect(store.load(identity, tscKHz: 2_002_000) { Issue.record("\($0)") } == nil)
            // It is somebody else's, and stays.
            #expect(store.list().map(\.name) == [template.name])
        }
    }

    @Test func eachPartOfTheIdentityChangesTheName() {
        var names: Set = [identity.name]
        var other = identity
        other.shape.vcpuCount = 2
        names.insert(other.name)
        other = identity
        other.accelerator = .kvm
        names.insert(other.name)
        other = identity
        other.qemu = "QEMU 8"
        names.insert(other.name)
        other = identity
        other.processor = "Another"
        names.insert(other.name)
        other = identity
        other.imageDigests["rootfs.ext4"] = "01"
        names.insert(other.name)
        other = identity
        other.initramfs = "initramfs-2.cpio"
        names.insert(other.name)
        #expect(names.count == 7)
    }

    @Test func theLongestUnusedAreEvictedFirstAndKeptOnesNever() throws {
        try withStore { store in
            let old = try built(store)
            let new = try built(store)
            try Data().write(to: URL(filePath: old.used))
            try FileManager.default.setAttributes(
                [.modificationDate: Date(timeIntervalSinceNow: -1_000)],
                ofItemAtPath: old.used
            )
            #expect(store.evict(maximumBytes: 1 << 30, maximumAge: 2_000).isEmpty)
            #expect(store.evict(maximumBytes: 0, maximumAge: 500, keeping: [old.name, new.name]).isEmpty)
            #expect(store.evict(maximumBytes: 1 << 30, maximumAge: 500) == [old.name])
            #expect(store.list().map(\.name) == [new.name])
            #expect(store.evict(maximumBytes: 0, maximumAge: 500) == [new.name])
            #expect(store.list().isEmpty)
        }
    }

    @Test func onlyTemplatesOfTheStoreCanBeRemoved() throws {
        try withStore { store in
            let template = try built(store)
            for name in ["", ".", "..", "../x", ".lock", "none"] {
                #expect(throws: TemplateError.self) { try store.remove(name) }
            }
            try store.remove(template.name)
            #expect(store.list().isEmpty)
        }
    }

    @Test func whatACrashedBuildLeftIsCleared() throws {
        try withStore { store in
            let left = "\(directory)/.building-abc"
            try FileManager.default.createDirectory(atPath: left, withIntermediateDirectories: true)
            let mine = try store.makeWorkDirectory()
            #expect(!FileManager.default.fileExists(atPath: left))
            #expect(FileManager.default.fileExists(atPath: mine))
        }
    }
}

@Suite struct QEMUCommandTests {
    private func command(_ start: QEMUCommand.Start, jail: Jail = .none) -> [String] {
        let view = Jail.View(
            image: "/data/image",
            template: "/data/template",
            disk: "/data/vm/disk.qcow2",
            usesKVM: false
        )
        return QEMUCommand(
            platform: QEMUPlatform(accelerator: .tcg, version: .init(major: 7, minor: 2), tscKHz: 1),
            shape: VMShape(memoryMB: 512, vcpuCount: 2),
            start: start,
            files: jail.files(view, kernel: "vmlinuz", initramfs: "initramfs.cpio")
        ).arguments
    }

    @Test(arguments: [QEMUCommand.Start.boot, .bootIntoFile, .restore])
    func everyQEMUHasItsSandboxAndNoNetwork(start: QEMUCommand.Start) {
        let words = command(start).joined(separator: " ")
        #expect(words.contains("-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"))
        #expect(words.contains("-nodefaults") && !words.contains("-netdev") && !words.contains("-nic"))
    }

    @Test func aCloneCopiesItsMemoryOnWriteAndATemplateSharesIt() {
        #expect(command(.restore).contains { $0.hasPrefix("memory-backend-file") && $0.hasSuffix("share=off") })
        #expect(command(.bootIntoFile).contains { $0.hasPrefix("memory-backend-file") && $0.hasSuffix("share=on") })
        #expect(!command(.boot).contains { $0.hasPrefix("memory-backend-file") })
    }

    @Test func insideTheJailPathsAreTheJails() {
        let root = JailRoot(directory: "/data/jail-1", qemu: "/usr/bin/qemu-system-x86_64")
        let words = command(.restore, jail: .bubblewrap(executable: "/usr/bin/bwrap", root: root)).joined(
            separator: " "
        )
        #expect(!words.contains("/data"))
        #expect(words.contains("/template/disk.qcow2") && words.contains("/vm/disk.qcow2"))
    }

    @Test func theJailLetsQEMUWriteItsDiskAndNothingElse() {
        let root = JailRoot(directory: "/data/jail-1", qemu: "/usr/bin/qemu-system-x86_64")
        let view = Jail.View(image: "/i", template: "/t", disk: "/d", usesKVM: false)
        let (executable, arguments) = Jail.bubblewrap(executable: "/usr/bin/bwrap", root: root).command(
            qemu: "q",
            view: view,
            filter: 8
        )
        #expect(executable == "/usr/bin/bwrap")
        for word in ["--unshare-all", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv"] {
            #expect(arguments.contains(word))
        }
        let writable = arguments.indices.filter { arguments[$0] == "--bind" }.map { arguments[$0 + 1] }
        #expect(writable == ["/d"])
        #expect(arguments.firstIndex(of: "--seccomp").map { arguments[$0 + 1] } == "8")
        #expect(arguments.last == "/usr/bin/qemu-system-x86_64")
        #expect(!arguments.contains("/dev/kvm"))
    }
}
