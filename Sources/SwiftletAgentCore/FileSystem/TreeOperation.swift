// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgent
import Glibc

/// An operation on a whole tree, which a program of the guest does, like any other program within its limits: `tar` packs and
/// unpacks, `rm` removes.
final class TreeOperation: FileOperation {
    private static let errorsLimit = 1_024

    /// Set before `start()`.
    var programs: Programs?
    var loop: EventLoop?

    private var window = ReceiveWindow()
    private var pump: OutputPump?
    /// The program's standard input, while content comes.
    private var input: Int32 = -1
    private var isWatchingInput = false
    private var pending: [[UInt8]] = []
    private var written = 0
    private var isComplete = false
    private var errors: Int32 = -1
    private var pid: pid_t = 0

    override func start() {
        let path = path
        let request = request
        attempt { () throws(FileFailure) -> FileStatus in
            if request.operation == .unpack {
                _ = try path.makeDirectories(mode: 0o755)
            }
            let status = try path.status(following: request.operation != .remove)
            if request.operation != .remove, status.kind != .directory { throw FileFailure(errno: ENOTDIR) }
            return status
        } then: { [self] status in
            guard !isOver else { return }
            run()
            if !isOver, request.operation != .remove { stream.send(.opened, status.payload) }
            writeInput()
        }
    }

    private var command: [[UInt8]] {
        let flags: [String]
        switch request.operation {
        case .pack:
            // Mounted file systems are left out: /proc has no end.
            flags = ["/usr/bin/tar", "--create", "--one-file-system", "--file=-", "--directory"]
            return flags.map { Array($0.utf8) } + [request.path, [UInt8(ascii: ".")]]
        case .unpack:
            let compressed = request.flags.contains(.compressed) ? ["--gzip"] : []
            flags =
                ["/usr/bin/tar", "--extract", "--preserve-permissions", "--no-same-owner", "--file=-"] + compressed
                + ["--directory"]
        default:
            flags = ["/usr/bin/rm", "--recursive", "--force", "--one-file-system", "--"]
        }
        return flags.map { Array($0.utf8) } + [request.path]
    }

    private func run() {
        guard let programs, let loop else { return }
        var inputs: [Int32] = [-1, -1]
        var outputs: [Int32] = [-1, -1]
        guard agent_pipe(&inputs) == 0 else { return fail(.last) }
        guard agent_pipe(&outputs) == 0 else {
            inputs.forEach { close($0) }
            return fail(.last)
        }
        errors = agent_memory_file("errors")
        let started = programs.start(command, descriptors: [inputs[0], outputs[1], errors]) { [self] in ended($0) }
        close(inputs[0])
        close(outputs[1])
        input = inputs[1]
        _ = fcntl(input, F_SETFL, O_NONBLOCK)
        guard let started else {
            close(outputs[0])
            closeInput()
            close(errors)
            return fail(FileFailure(.programFailed, "The guest cannot start \(name)"))
        }
        pid = started
        let pump = OutputPump(descriptor: outputs[0], channel: .content, loop: loop)
        self.pump = pump
        stream.pumps = [pump]
        if request.operation == .pack { _ = pump.send(to: stream) } else { pump.discard() }
        if request.operation != .unpack { closeInput() }
    }

    private var name: String { request.operation == .remove ? "rm" : "tar" }

    override func resume() { pump?.resume() }

    // MARK: Content

    override func receive(_ payload: [UInt8]) throws(ProtocolError) {
        guard request.operation == .unpack, !isComplete else { throw .unexpectedFrame(.data, stream: stream.number) }
        try window.receive(payload.count - 1, stream: stream.number)
        pending.append(payload)
        writeInput()
    }

    override func receiveEnd() throws(ProtocolError) {
        guard request.operation == .unpack, !isComplete else { throw .unexpectedFrame(.end, stream: stream.number) }
        isComplete = true
        writeInput()
    }

    private func writeInput() {
        guard pid != 0 else { return }
        while let payload = pending.first {
            let start = written + 1
            let count =
                input < 0
                // The program has closed its input: it has read the end of the archive, or it has failed.
                ? payload.count - start
                : payload.withUnsafeBytes { write(input, $0.baseAddress?.advanced(by: start), $0.count - start) }
            if count < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN { return watchInput(true) }
                closeInput()
                continue
            }
            written += count
            guard written == payload.count - 1 else { continue }
            written = 0
            pending.removeFirst()
            grant(payload.count - 1)
        }
        watchInput(false)
        if isComplete { closeInput() }
    }

    private func grant(_ count: Int) {
        guard let credit = window.consume(count), !isOver else { return }
        var writer = WireWriter()
        writer.write(credit)
        stream.send(.credit, writer.bytes)
    }

    private func watchInput(_ wanted: Bool) {
        guard input >= 0, wanted != isWatchingInput else { return }
        isWatchingInput = wanted
        if wanted {
            loop?.watch(input, for: EventLoop.writable) { [self] _ in writeInput() }
        } else {
            loop?.unwatch(input)
        }
    }

    private func closeInput() {
        guard input >= 0 else { return }
        watchInput(false)
        close(input)
        input = -1
    }

    // MARK: The end

    private func ended(_ program: ProgramEnd) {
        closeInput()
        let done: FileDone
        // tar exits with 1 when a file changed while it was read.
        if program.code == 0 || (request.operation == .pack && program.code == 1) {
            done = FileDone()
        } else {
            let how = program.code.map { "ended with \($0)" } ?? "was killed by signal \(program.signal)"
            let text = lastErrors()
            // On a full disk tar reports a short write.
            let isFull = text.contains("No space left on device") || text.contains("Wrote only ")
            let prefix = isFull ? "No space left on device: " : ""
            done = FileDone(
                failure: isFull ? .noSpace : .programFailed,
                message: "\(prefix)\(name) \(how). \(text)"
            )
        }
        close(errors)
        guard let pump, request.operation == .pack, !isOver else {
            pump?.close()
            pump = nil
            return end(done)
        }
        pump.drain { [self] in
            pump.close()
            stream.pumps = []
            self.pump = nil
            end(done)
        }
    }

    private func lastErrors() -> String {
        var record = stat()
        guard fstat(errors, &record) == 0 else { return "" }
        let start = max(0, Int(record.st_size) - TreeOperation.errorsLimit)
        var buffer = [UInt8](repeating: 0, count: TreeOperation.errorsLimit)
        let count = pread(errors, &buffer, buffer.count, off_t(start))
        return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    }

    override func cancel() {
        super.cancel()
        // `ended` cleans up.
        if pid != 0 { kill(-pid, SIGKILL) }
        pump?.discard()
    }
}
