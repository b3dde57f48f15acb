// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import Glibc
import Testing

/// The operations on files, as the host asks for them.
@Suite(.serialized, .timeLimit(.minutes(5)), .ownThread) struct FileOperationTests {
    private func agent() throws -> AgentHarness {
        let agent = try AgentHarness()
        _ = try agent.prepare()
        return agent
    }

    // MARK: Reading

    @Test(arguments: [(0, 6, "abcdef"), (2, 3, "cde"), (4, 100, "ef"), (6, 5, ""), (1 << 40, 5, ""), (0, 0, "")])
    func `a range is sent as far as the file goes`(offset: UInt64, length: UInt64, expected: String) throws {
        let agent = try agent()
        try agent.make("f", "abcdef")
        let (content, done) = try agent.read("f", FileRange(offset: offset, length: length))
        #expect(String(decoding: content, as: UTF8.self) == expected)
        #expect(done.failure == nil)
        #expect(done.count == UInt64(expected.utf8.count))
    }

    @Test func `a file that is larger than the credit is sent as far as credit goes, then whole`() throws {
        let agent = try agent()
        let bytes = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 / 251) }
        try Data(bytes).write(to: URL(filePath: agent.directory + "/large"))
        let stream = try agent.open(.read, "large")
        #expect(try FileStatus(payload: try agent.next(stream: stream).payload).size == 1_000_000)
        try agent.send(Frame(.range, stream: stream, payload: FileRange(offset: 0, length: 1 << 40).payload))
        var content: [UInt8] = []
        while content.count < ProtocolLimits.initialCredit {
            content += try agent.next(stream: stream).payload.dropFirst()
        }
        #expect(content.count == ProtocolLimits.initialCredit)
        try agent.expectSilence(stream: stream)
        try agent.grant(2_000_000, to: stream)
        let (rest, done) = try agent.content(of: stream)
        #expect(content + rest == bytes)
        #expect(done.count == 1_000_000)
    }

    @Test func `no content follows a done`() throws {
        let agent = try agent()
        try Data(repeating: 1, count: 3_000_000).write(to: URL(filePath: agent.directory + "/large"))
        for _ in 0..<20 {
            let stream = try agent.open(.read, "large")
            #expect(try agent.next(stream: stream).type == .opened)
            try agent.send(Frame(.range, stream: stream, payload: FileRange(offset: 0, length: 3_000_000).payload))
            #expect(try agent.next(stream: stream).type == .data)
            try agent.grant(3_000_000, to: stream)
            try agent.send(Frame(.cancel, stream: stream, payload: [CancelReason.cancelled.rawValue]))
            var frame = try agent.next(stream: stream)
            while frame.type == .data { frame = try agent.next(stream: stream) }
            #expect(frame.type == .done)
        }
        for stream in 1...20 { try agent.expectSilence(stream: UInt32(stream)) }
        #expect(try agent.run("echo on").text == "on\n")
    }

    @Test func `files without a size are read whole`() throws {
        let agent = try agent()
        let (content, done) = try agent.read("/proc/self/status", FileRange(offset: 0, length: 1 << 20))
        #expect(String(decoding: content, as: UTF8.self).contains("AgentOnHost"))
        #expect(done.count == UInt64(content.count))
    }

    @Test func `reading a file that is missing or not regular fails without blocking`() throws {
        let agent = try agent()
        try #require(mkfifo(agent.directory + "/pipe", 0o600) == 0)
        #expect(try agent.refusal(.read, "pipe") == .notRegular)
        #expect(try agent.refusal(.read, "/dev/zero") == .notRegular)
        #expect(try agent.refusal(.read, ".") == .isADirectory)
        #expect(try agent.refusal(.read, "none") == .notFound)
        try agent.make("f", "x")
        #expect(try agent.refusal(.read, "f/g") == .notADirectory)
        try #require(symlink("loop", agent.directory + "/loop") == 0)
        #expect(try agent.refusal(.read, "loop") == .tooManyLinks)
        #expect(try agent.refusal(.read, String(repeating: "n", count: 256)) == .nameTooLong)
    }

    @Test func `parent directories and double slashes mean what they mean to the kernel`() throws {
        let agent = try agent()
        try agent.make("f", "abc")
        _ = try agent.done(agent.open(.makeDirectory, "sub/sub"))
        let whole = FileRange(offset: 0, length: 100)
        #expect(try agent.read("sub/sub/../..//f", whole).0 == Array("abc".utf8))
        #expect(try agent.read("/../../.." + agent.directory + "/./f", whole).0 == Array("abc".utf8))
        #expect(try agent.refusal(.read, "none/../f") == .notFound)
        let (stream, _) = try agent.beginWriting("sub/../new", size: nil)
        try agent.content("x", to: stream)
        #expect(try agent.endWriting(stream).flags == .created)
        #expect(try String(contentsOfFile: agent.directory + "/new", encoding: .utf8) == "x")
        #expect(try agent.refusal(.write, "sub/..") == .isADirectory)
        #expect(try agent.refusal(.remove, "sub/sub/..") == .notEmpty)
    }

    @Test func `the longest path that a request may have is refused by the kernel, and not by a crash`() throws {
        let agent = try agent()
        let path = "/" + String(repeating: "n/", count: FileRequest.maximumPath / 2 - 1) + "nn"
        #expect(path.utf8.count == FileRequest.maximumPath)
        for operation in [FileRequest.Operation.read, .list, .status, .remove, .pack] {
            #expect(try agent.refusal(operation, path) == .notFound)
        }
        #expect(try agent.refusal(.write, "/" + String(repeating: "n", count: 4_094)) == .nameTooLong)
    }

    @Test(arguments: ["relative", "", "/a\0b"])
    func `a request with an invalid path fails, and the agent goes on`(path: String) throws {
        let agent = try agent()
        try expectRefusal(of: path, by: agent)
    }

    @Test func `a request with a path that is too long fails, and the agent goes on`() throws {
        let agent = try agent()
        try expectRefusal(of: String(repeating: "/n", count: FileRequest.maximumPath / 2 + 1), by: agent)
    }

    private func expectRefusal(of path: String, by agent: AgentHarness) throws {
        // Written field by field, because `FileRequest` refuses to be made with such a path.
        let valid = try FileRequest(.status, path: Array("/".utf8)).payload
        var writer = WireWriter()
        writer.write(Array(path.utf8))
        try agent.send(Frame(.file, stream: 90, payload: [valid[0]] + writer.bytes + valid.dropFirst(6)))
        let frame = try agent.next(stream: 90)
        #expect(try FileDone(payload: frame.payload).failure == .other)
        #expect(try agent.run("echo on").text == "on\n")
    }

    @Test func `a second range, and one before the file is open, break the protocol`() throws {
        let first = try agent()
        try first.make("f", "abc")
        let stream = try first.open(.read, "f")
        _ = try first.next(stream: stream)
        let range = Frame(.range, stream: stream, payload: FileRange(offset: 0, length: 0).payload)
        let half = Frame(.range, stream: stream, payload: FileRange(offset: 0, length: 1 << 30).payload)
        try Data(repeating: 1, count: 1_000_000).write(to: URL(filePath: first.directory + "/f"))
        try first.send(half)
        try first.send(range)
        #expect(try first.waitForExit().console.contains("Unexpected frame range"))
    }

    // MARK: Writing

    @Test func `a file appears when it is whole, with its mode, and leaves nothing else`() throws {
        let agent = try agent()
        let (stream, opened) = try agent.beginWriting("sub/new", size: 6, mode: 0o640)
        #expect(opened.type == .opened)
        try agent.content("abc", to: stream)
        #expect(try agent.names("sub") == 1)
        #expect(!FileManager.default.fileExists(atPath: agent.directory + "/sub/new"))
        try agent.content("def", to: stream)
        let done = try agent.endWriting(stream)
        #expect(done.failure == nil)
        #expect(done.flags == .created)
        #expect(done.status?.mode == 0o640)
        #expect(try String(contentsOfFile: agent.directory + "/sub/new", encoding: .utf8) == "abcdef")
        #expect(try agent.names("sub") == 1)
    }

    @Test func `a file that is replaced keeps its mode, and is what it was until the end`() throws {
        let agent = try agent()
        try agent.make("f", "old")
        chmod(agent.directory + "/f", 0o751)
        let (stream, _) = try agent.beginWriting("f", size: nil)
        try agent.content("newer", to: stream)
        #expect(try String(contentsOfFile: agent.directory + "/f", encoding: .utf8) == "old")
        let done = try agent.endWriting(stream)
        #expect(done.flags == [])
        #expect(done.status?.mode == 0o751)
        #expect(try String(contentsOfFile: agent.directory + "/f", encoding: .utf8) == "newer")
    }

    @Test(arguments: ["ab", "abcd"])
    func `content of another length than announced leaves the old file, and no partial one`(content: String) throws {
        let agent = try agent()
        try agent.make("f", "old")
        let (stream, _) = try agent.beginWriting("f", size: 3)
        try agent.content(content, to: stream)
        #expect(try agent.endWriting(stream).failure == .wrongSize)
        #expect(try String(contentsOfFile: agent.directory + "/f", encoding: .utf8) == "old")
        #expect(try agent.names(".") == 1)
    }

    @Test func `a cancelled write leaves nothing`() throws {
        let agent = try agent()
        let (stream, _) = try agent.beginWriting("f", size: 100)
        try agent.content("abc", to: stream)
        try agent.send(Frame(.cancel, stream: stream, payload: [CancelReason.cancelled.rawValue]))
        #expect(try agent.done(stream).failure == .cancelled)
        #expect(eventually { (try? agent.names(".")) == 0 })
    }

    @Test func `a resumable write goes on where it stopped, and only there`() throws {
        let agent = try agent()
        let (first, _) = try agent.beginWriting("f", size: 6, flags: .resumable)
        try agent.content("abc", to: first)
        let partial = try agent.endWriting(first)
        #expect(partial.flags == .partial)
        #expect(partial.count == 3)
        #expect(try String(contentsOfFile: agent.directory + "/.f.partial", encoding: .utf8) == "abc")
        for offset: UInt64 in [2, 4] {
            let (_, frame) = try agent.beginWriting("f", size: 6, flags: .resumable, offset: offset)
            let refused = try FileDone(payload: frame.payload)
            #expect(refused.failure == .wrongOffset)
            #expect(refused.count == 3)
        }
        let (second, opened) = try agent.beginWriting("f", size: 6, flags: .resumable, offset: 3)
        #expect(try FileStatus(payload: opened.payload).size == 3)
        try agent.content("def", to: second)
        #expect(try agent.endWriting(second).flags == .created)
        #expect(try String(contentsOfFile: agent.directory + "/f", encoding: .utf8) == "abcdef")
        #expect(try agent.names(".") == 1)
    }

    @Test func `a second resumable write to the same path is refused while one goes on`() throws {
        let agent = try agent()
        let (first, _) = try agent.beginWriting("f", size: 6, flags: .resumable)
        let (_, refused) = try agent.beginWriting("f", size: 6, flags: .resumable)
        #expect(try FileDone(payload: refused.payload).failure == .busy)
        try agent.content("abcdef", to: first)
        #expect(try agent.endWriting(first).failure == nil)
    }

    @Test func `a planted link in place of a partial file is not followed`() throws {
        let agent = try agent()
        try agent.make("victim", "safe")
        try #require(symlink("victim", agent.directory + "/.f.partial") == 0)
        let (_, frame) = try agent.beginWriting("f", size: 3, flags: .resumable)
        #expect(try FileDone(payload: frame.payload).failure == .tooManyLinks)
        #expect(try String(contentsOfFile: agent.directory + "/victim", encoding: .utf8) == "safe")
    }

    @Test func `a write goes through links, to a file that is not there yet too`() throws {
        let agent = try agent()
        try #require(mkdir(agent.directory + "/real", 0o755) == 0)
        try #require(symlink("real/target", agent.directory + "/link") == 0)
        let (stream, _) = try agent.beginWriting("link", size: nil)
        try agent.content("x", to: stream)
        #expect(try agent.endWriting(stream).flags == .created)
        #expect(try String(contentsOfFile: agent.directory + "/real/target", encoding: .utf8) == "x")
        var record = stat()
        #expect(lstat(agent.directory + "/link", &record) == 0 && record.st_mode & S_IFMT == S_IFLNK)
    }

    @Test func `a write to a file that is not regular is refused`() throws {
        let agent = try agent()
        try #require(mkfifo(agent.directory + "/pipe", 0o600) == 0)
        #expect(try agent.refusal(.write, "pipe") == .notRegular)
        #expect(try agent.refusal(.write, ".") == .isADirectory)
        #expect(try agent.refusal(.write, "directory/") == .isADirectory)
        try agent.make("f", "x")
        #expect(try agent.refusal(.write, "f/g") == .notADirectory)
        try #require(symlink("loop", agent.directory + "/loop") == 0)
        #expect(try agent.refusal(.write, "loop") == .tooManyLinks)
        #expect(try agent.names(".") == 3)
    }

    @Test func `content beyond the credit breaks the protocol`() throws {
        let agent = try agent()
        #expect(eventually { agent.children.count == 2 })
        let shells = Set(agent.children.keys)
        let stream = try agent.open(.unpack, "to")
        #expect(try agent.next(stream: stream).type == .opened)
        let program = try #require(agent.children.keys.first { !shells.contains($0) })
        // A program that takes nothing lets the agent give no credit but for what a pipe holds, 64 KiB.
        try #require(kill(program, SIGSTOP) == 0)
        let bytes = [UInt8](repeating: 1, count: ProtocolLimits.initialCredit + 128 * 1024)
        var burst: [UInt8] = []
        for frame in Frame.data(bytes[...], channel: .content, stream: stream) { burst += frame.encoded() }
        // The agent may close its end before all is written.
        try? agent.send(raw: burst)
        #expect(try agent.waitForExit().console.contains("Stream \(stream) sent more than its credit"))
    }

    // MARK: Directories

    @Test func `a listing is in the order of the names' bytes, and pages do not skip or repeat`() throws {
        let agent = try agent()
        let names = (0..<25).map { String(format: "n%02d", $0) }
        for name in names.shuffled() { try agent.make(name, name) }
        var found: [String] = []
        var pages = 0
        var hasMore = true
        while hasMore {
            let (entries, done) = try agent.list(".", limit: 10, after: found.last ?? "")
            found += entries.map { String(decoding: $0.name, as: UTF8.self) }
            hasMore = done.flags.contains(.more)
            pages += 1
        }
        #expect(found == names)
        #expect(pages == 3)
    }

    @Test func `names of any bytes are listed, links with their targets, unfollowed`() throws {
        let agent = try agent()
        let hostile: [[UInt8]] = [[0xff, 0xfe], Array("a\nb".utf8), Array("...".utf8), Array("-rf".utf8)]
        for name in hostile {
            let path = Array("\(agent.directory)/".utf8) + name + [0]
            let descriptor = path.withUnsafeBytes {
                open($0.bindMemory(to: CChar.self).baseAddress!, O_CREAT | O_WRONLY, 0o644)
            }
            try #require(descriptor >= 0)
            close(descriptor)
        }
        try #require(symlink("/nowhere", agent.directory + "/link") == 0)
        let (entries, done) = try agent.list(".", limit: 100)
        let expected = (hostile + [Array("link".utf8)]).sorted { $0.lexicographicallyPrecedes($1) }
        #expect(entries.map(\.name) == expected)
        #expect(done.flags == [])
        let link = try #require(entries.first { $0.name == Array("link".utf8) })
        #expect(link.status.kind == .symbolicLink)
        #expect(link.target == Array("/nowhere".utf8))
    }

    @Test func `a listing larger than the credit waits for it`() throws {
        let agent = try agent()
        for number in 0..<2_000 { try agent.make(String(repeating: "x", count: 200) + "\(number)", "") }
        let (entries, done) = try agent.list(".", limit: 5_000)
        #expect(entries.count == 2_000)
        #expect(done.failure == nil)
    }

    @Test func `a directory is made with its parents, and making it again succeeds`() throws {
        let agent = try agent()
        let done = try agent.done(agent.open(.makeDirectory, "a/b/c", mode: 0o700))
        #expect(done.flags == .created)
        #expect(done.status?.mode == 0o700)
        #expect(try agent.done(agent.open(.makeDirectory, "a/b/c")).flags == [])
        try agent.make("f", "x")
        #expect(try agent.done(agent.open(.makeDirectory, "f")).failure == .exists)
        #expect(try agent.done(agent.open(.makeDirectory, "f/g")).failure == .notADirectory)
    }

    @Test func `a removal takes a link and not its target, and a full directory only if it is told to`() throws {
        let agent = try agent()
        try agent.make("target", "x")
        try #require(symlink("target", agent.directory + "/link") == 0)
        #expect(try agent.done(agent.open(.remove, "link")).failure == nil)
        #expect(try agent.names(".") == 1)
        _ = try agent.done(agent.open(.makeDirectory, "d/e"))
        #expect(try agent.done(agent.open(.remove, "d")).failure == .notEmpty)
        #expect(try agent.done(agent.open(.remove, "d", flags: .recursive)).failure == nil)
        #expect(try agent.done(agent.open(.remove, "d")).failure == .notFound)
        #expect(try agent.names(".") == 1)
    }

    // MARK: Trees

    @Test func `a tree that was packed is the same when it is unpacked`() throws {
        let agent = try agent()
        _ = try agent.done(agent.open(.makeDirectory, "from/sub"))
        try agent.make("from/sub/-name", "content")
        let packing = try agent.open(.pack, "from")
        #expect(try agent.next(stream: packing).type == .opened)
        let (archive, done) = try agent.content(of: packing)
        #expect(done.failure == nil)
        let unpacking = try agent.open(.unpack, "to")
        #expect(try agent.next(stream: unpacking).type == .opened)
        for frame in Frame.data(archive[...], channel: .content, stream: unpacking) { try agent.send(frame) }
        #expect(try agent.endWriting(unpacking).failure == nil)
        #expect(try String(contentsOfFile: agent.directory + "/to/sub/-name", encoding: .utf8) == "content")
    }

    @Test func `unpacking an invalid archive fails with tar's message`() throws {
        let agent = try agent()
        let stream = try agent.open(.unpack, "to")
        #expect(try agent.next(stream: stream).type == .opened)
        try agent.content("not an archive", to: stream)
        let done = try agent.endWriting(stream)
        #expect(done.failure == .programFailed)
        #expect(done.message.contains("tar ended with 2"))
    }

    @Test func `a packing that is cancelled ends its program`() throws {
        let agent = try agent()
        try Data(count: 3_000_000).write(to: URL(filePath: agent.directory + "/large"))
        #expect(eventually { agent.children.count == 2 })
        let stream = try agent.open(.pack, ".")
        #expect(try agent.next(stream: stream).type == .opened)
        #expect(agent.children.count == 3)
        try agent.send(Frame(.cancel, stream: stream, payload: [CancelReason.cancelled.rawValue]))
        var frame = try agent.next(stream: stream)
        while frame.type == .data { frame = try agent.next(stream: stream) }
        #expect(try FileDone(payload: frame.payload).failure == .cancelled)
        #expect(eventually { agent.children.count == 2 })
    }

    @Test func `nothing is read before everything is confirmed`() throws {
        let agent = try AgentHarness()
        let stream = try agent.open(.read, "f")
        #expect(try agent.waitForExit().console.contains("Unexpected frame file on stream \(stream)"))
    }
}
