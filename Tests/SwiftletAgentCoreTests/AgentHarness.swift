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
    let process = Process()
    private let socket: Int32
    private let errors = Pipe()
    private var decoder = FrameDecoder()
    /// Frames of streams that nobody has asked for yet.
    private var waiting: [Frame] = []
    private var lastStream: UInt32 = 0

    init(python: [String] = []) throws {
        let base = FileManager.default.temporaryDirectory.path + "/agent-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: base, withIntermediateDirectories: true)
        // Without links on the way to it, as the tests compare paths.
        directory = URL(filePath: base).resolvingSymlinksInPath().path
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        try #require(socketpair(AF_UNIX, kind, 0, &ends) == 0)
        socket = ends[0]
        let executable = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        process.executableURL = executable.deletingLastPathComponent().appending(path: "AgentOnHost")
        process.arguments = [directory] + python
        process.standardInput = FileHandle(fileDescriptor: ends[1], closeOnDealloc: true)
        process.standardError = errors
        try process.run()
        let hello = try next(stream: 0)
        #expect(hello.type == .hello)
    }

    deinit {
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
        close(socket)
        try? FileManager.default.removeItem(atPath: directory)
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
    func next(stream: UInt32, within seconds: Double = 20) throws -> Frame {
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

    /// Expects that a stream stays silent for a moment.
    func expectSilence(stream: UInt32, sourceLocation: SourceLocation = #_sourceLocation) {
        let frame = try? next(stream: stream, within: 0.2)
        #expect(frame == nil, sourceLocation: sourceLocation)
    }

    /// Expects that no frame of a stream has arrived that nobody asked for.
    func expectNothingKept(stream: UInt32, sourceLocation: SourceLocation = #_sourceLocation) {
        let kept = waiting.filter { $0.stream == stream }
        #expect(kept.isEmpty, sourceLocation: sourceLocation)
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

    /// Waits for the agent's end; returns what it wrote to the console.
    func end() -> String {
        process.waitUntilExit()
        return String(decoding: errors.fileHandleForReading.availableData, as: UTF8.self)
    }

    /// The states of the agent's children, as proc(5) has them, by process id.
    var children: [Int32: Character] {
        let pid = process.processIdentifier
        let text = (try? String(contentsOfFile: "/proc/\(pid)/task/\(pid)/children", encoding: .utf8)) ?? ""
        return text.split(separator: " ").compactMap { Int32($0) }.reduce(into: [:]) { states, child in
            let stat = (try? String(contentsOfFile: "/proc/\(child)/stat", encoding: .utf8)) ?? ""
            states[child] = stat[(stat.lastIndex(of: ")") ?? stat.startIndex)...].dropFirst(2).first
        }
    }
}

/// Waits until something is true.
func eventually(within seconds: Double = 10, _ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = Date(timeIntervalSinceNow: seconds)
    while Date() < deadline {
        if try condition() { return true }
        usleep(10_000)
    }
    return false
}
