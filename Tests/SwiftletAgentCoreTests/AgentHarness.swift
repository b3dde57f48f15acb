// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Foundation
import Glibc
import Testing

/// An agent in a process of its own (`AgentOnHost`), and this end of its control port.
final class AgentHarness {
    struct NoFrame: Error, CustomStringConvertible {
        let description: String
    }

    /// Everything that an execution sent, up to its last frame.
    struct Output {
        var stdout: [UInt8] = []
        var stderr: [UInt8] = []
        var results: [UInt8] = []
        var report: ExitReport?
        var refusal: ExecutionRefusal?

        var text: String { String(decoding: stdout, as: UTF8.self) }
        var errorText: String { String(decoding: stderr, as: UTF8.self) }
    }

    /// Where the agent's programs start; removed with the harness.
    let directory: String
    /// The process that supervises the agent, and kills all that it left when this end of the control port is closed.
    private let supervisor: pid_t
    private let socket: Int32
    /// This end of the socket that is the agent's standard error.
    private let console: Int32
    private var exit: (code: Int32, console: String)?
    private var decoder = FrameDecoder()
    /// Frames that arrived while the test waited for one of another stream.
    private var waiting: [Frame] = []
    private var lastStream: UInt32 = 0
    private var lastPing: UInt64 = 0

    /// Milliseconds between the steps that end an interpreter's call are `interruptDelay`.
    init(python: [String] = [], interruptDelay: Int = 100) throws {
        let base = FileManager.default.temporaryDirectory.path + "/agent-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: base, withIntermediateDirectories: true)
        // The tests compare paths, so it contains no symbolic links.
        directory = URL(filePath: base).resolvingSymlinksInPath().path
        var ends: [Int32] = [-1, -1]
        var output: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        try #require(socketpair(AF_UNIX, kind, 0, &ends) == 0)
        try #require(socketpair(AF_UNIX, kind, 0, &output) == 0)
        (socket, console) = (ends[0], output[0])
        defer { for descriptor in [ends[1], output[1]] { close(descriptor) } }
        supervisor = try Self.spawn(
            ["AgentOnHost", directory, "\(interruptDelay)"] + python,
            input: ends[1],
            errors: output[1]
        )
        let hello = try next(stream: 0)
        #expect(hello.type == .hello)
    }

    deinit {
        do {
            try end()
        } catch {
            Issue.record(error)
        }
        close(socket)
        close(console)
        // A test may have removed it.
        try? FileManager.default.removeItem(atPath: directory)
    }

    private static func spawn(_ words: [String], input: Int32, errors: Int32) throws -> pid_t {
        let executable = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        let path = executable.deletingLastPathComponent().appending(path: words[0]).path
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input, 0)
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, errors, 2)
        let argv = words.map { strdup($0) } + [nil]
        defer { argv.forEach { free($0) } }
        var pid: pid_t = 0
        let failure = posix_spawn(&pid, path, &actions, nil, argv, environ)
        try #require(failure == 0, "\(path): \(String(cString: strerror(failure)))")
        return pid
    }

    // MARK: Frames

    func send(_ frame: Frame) throws { try send(raw: frame.encoded()) }

    func send(raw all: [UInt8]) throws {
        var bytes = all[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes {
                Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw NoFrame(description: "The agent has closed its port") }
            bytes = bytes.dropFirst(count)
        }
    }

    /// The next frame of a stream; those of other streams are kept for later.
    func next(stream: UInt32, within seconds: Double = patience) throws -> Frame {
        if let index = waiting.firstIndex(where: { $0.stream == stream }) { return waiting.remove(at: index) }
        let deadline = Date(timeIntervalSinceNow: seconds)
        while true {
            while let frame = try decoder.next() {
                if frame.stream == stream { return frame }
                waiting.append(frame)
            }
            guard try receive(until: deadline) else {
                throw NoFrame(description: "No frame of stream \(stream) within \(seconds) s")
            }
        }
    }

    /// Waits for the answer to a ping: what the agent had sent before has arrived then.
    func ping() throws {
        lastPing += 1
        let payload = withUnsafeBytes(of: lastPing) { Array($0) }
        try send(Frame(.ping, payload: payload))
        while try next(stream: 0) != Frame(.pong, payload: payload) {}
    }

    /// Expects that the agent sends nothing on a stream while its event loop runs through a few turns.
    func expectSilence(stream: UInt32, sourceLocation: SourceLocation = #_sourceLocation) throws {
        for _ in 0..<3 { try ping() }
        #expect(!waiting.contains { $0.stream == stream }, sourceLocation: sourceLocation)
    }

    /// Adds what arrives; false when nothing came in time.
    private func receive(until deadline: Date) throws -> Bool {
        let milliseconds = Int32(max(0, deadline.timeIntervalSinceNow * 1_000))
        var poller = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
        guard poll(&poller, 1, milliseconds) > 0 else { return false }
        var bytes = [UInt8](repeating: 0, count: 64 * 1024)
        let count = Glibc.read(socket, &bytes, bytes.count)
        guard count > 0 else { throw NoFrame(description: "The agent has closed its port") }
        decoder.append(bytes[..<count])
        return true
    }

    func newStream() -> UInt32 {
        lastStream += 1
        return lastStream
    }

    func grant(_ bytes: UInt32, to stream: UInt32) throws {
        var writer = WireWriter()
        writer.write(bytes)
        try send(Frame(.credit, stream: stream, payload: writer.bytes))
    }

    // MARK: Executions

    func prepare(entropy: UInt8 = 7, environment: [Prepare.Variable] = []) throws -> Prepared {
        try send(Frame(.prepare, payload: Self.identity(entropy: entropy, environment: environment).payload))
        while true {
            let frame = try next(stream: 0)
            if frame.type == .prepared { return try Prepared(payload: frame.payload) }
        }
    }

    static func identity(entropy: UInt8 = 7, environment: [Prepare.Variable] = []) -> Prepare {
        Prepare(
            generation: Array(repeating: 1, count: Prepare.generationSize),
            wallClock: 1,
            entropy: Array(repeating: entropy, count: 64),
            machineID: String(repeating: "a", count: 32),
            hostName: "guest",
            diskLimit: 0,
            environment: environment
        )
    }

    /// Starts an execution; its frames come on the stream that is returned.
    func start(_ source: String, _ language: GuestLanguage = .bash, timeout: UInt32 = 0) throws -> UInt32 {
        let stream = newStream()
        let source = Array(source.utf8)
        let request = ExecuteRequest(language: language, timeout: timeout, sourceLength: UInt32(source.count))
        try send(Frame(.execute, stream: stream, payload: request.payload))
        for frame in Frame.data(source[...], channel: .source, stream: stream) { try send(frame) }
        try send(Frame(.end, stream: stream, payload: [Channel.source.rawValue]))
        return stream
    }

    /// Receives an execution's frames up to the last, and gives credit for them.
    func finish(_ stream: UInt32) throws -> Output {
        var output = Output()
        while true {
            let frame = try next(stream: stream)
            switch frame.type {
            case .data:
                let bytes = frame.payload.dropFirst()
                switch frame.payload.first.flatMap(Channel.init) {
                case .stdout: output.stdout += bytes
                case .stderr: output.stderr += bytes
                case .results: output.results += bytes
                default: Issue.record("Output on channel \(frame.payload.first ?? 0)")
                }
                try grant(UInt32(bytes.count), to: stream)
            case .exit:
                output.report = try ExitReport(payload: frame.payload)
                return output
            case .refuse:
                output.refusal = try ExecutionRefusal(payload: frame.payload)
                return output
            default:
                Issue.record("Unexpected frame \(frame.type)")
            }
        }
    }

    func run(_ source: String, _ language: GuestLanguage = .bash, timeout: UInt32 = 0) throws -> Output {
        try finish(try start(source, language, timeout: timeout))
    }

    // MARK: The process

    /// Waits for the agent's end; returns its exit code and what it wrote to the console.
    func waitForExit() throws -> (code: Int32, console: String) {
        if let exit { return exit }
        var text: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 4_096)
        var isEnding = false
        var poller = pollfd(fd: console, events: Int16(POLLIN), revents: 0)
        // It ends with the supervisor, as the agent's programs have a standard error of their own.
        while true {
            guard poll(&poller, 1, Int32(patience * 1_000)) > 0 else {
                try #require(!isEnding, "The supervisor does not end")
                Issue.record("The agent does not end")
                isEnding = true
                shutdown(socket, Int32(SHUT_RDWR))
                continue
            }
            let count = Glibc.read(console, &bytes, bytes.count)
            guard count > 0 else { break }
            text += bytes[..<count]
        }
        var status: Int32 = 0
        while waitpid(supervisor, &status, 0) < 0, errno == EINTR {}
        let code = status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
        let exit = (code: code, console: String(decoding: text, as: UTF8.self))
        self.exit = exit
        return exit
    }

    /// Closes the control port, which ends the agent and all that it started; returns its exit code and console.
    @discardableResult
    func end() throws -> (code: Int32, console: String) {
        shutdown(socket, Int32(SHUT_RDWR))
        return try waitForExit()
    }

    /// The agent's own process, while it lives.
    var pid: pid_t? { Self.children(of: supervisor).first }

    /// The states of the agent's children, as proc(5) has them, by process id.
    var children: [Int32: Character] {
        Self.children(of: supervisor).flatMap { Self.children(of: $0) }.reduce(into: [:]) { states, child in
            let stat = (try? String(contentsOfFile: "/proc/\(child)/stat", encoding: .utf8)) ?? ""
            states[child] = stat[(stat.lastIndex(of: ")") ?? stat.startIndex)...].dropFirst(2).first
        }
    }

    private static func children(of pid: pid_t) -> [pid_t] {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/task/\(pid)/children", encoding: .utf8)) ?? ""
        return text.split(separator: " ").compactMap { pid_t($0) }
    }
}

/// Seconds that a test waits for what must happen: only a failure takes so long.
let patience = 60.0

/// Waits until something outside of this process is true that sends no signal.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = Date(timeIntervalSinceNow: patience)
    while Date() < deadline {
        if try condition() { return true }
        usleep(10_000)
    }
    return false
}
