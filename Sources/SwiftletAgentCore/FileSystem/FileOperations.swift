// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Glibc

/// One operation on a file, as the host asked for it, from its first frame to `done`.
class FileOperation {
    let request: FileRequest
    let stream: HostStream
    let workers: Workers
    private let onDone: () -> Void
    private(set) var isOver = false

    var path: GuestPath { GuestPath(request.path) }

    /// - Parameter onDone: called once, when the stream has ended.
    init(_ request: FileRequest, stream: HostStream, workers: Workers, onDone: @escaping () -> Void) {
        self.request = request
        self.stream = stream
        self.workers = workers
        self.onDone = onDone
    }

    /// Ends the stream.
    func end(_ done: FileDone) {
        guard !isOver else { return }
        isOver = true
        stream.send(.done, done.payload)
        onDone()
    }

    /// Runs a body on a worker; its failure ends the stream.
    func attempt<Value: Sendable>(
        _ body: @escaping @Sendable () throws(FileFailure) -> Value,
        then: @escaping (Value) -> Void
    ) {
        workers.run { () -> Result<Value, FileFailure> in
            do throws(FileFailure) {
                return .success(try body())
            } catch {
                return .failure(error)
            }
        } then: { [self] (result: Result<Value, FileFailure>) in
            switch result {
            case .success(let value): then(value)
            case .failure(let failure): fail(failure)
            }
        }
    }

    func fail(_ failure: FileFailure) { end(failure.done) }

    /// Begins; frames may come from now on.
    func start() {}

    /// The host chose a range.
    func send(_ range: FileRange) throws(ProtocolError) {
        throw .unexpectedFrame(.range, stream: stream.number)
    }

    /// Content came; the first byte of the payload is the channel.
    func receive(_ payload: [UInt8]) throws(ProtocolError) {
        throw .unexpectedFrame(.data, stream: stream.number)
    }

    /// The content is complete.
    func receiveEnd() throws(ProtocolError) {
        throw .unexpectedFrame(.end, stream: stream.number)
    }

    /// Credit came, or room in the port's queue.
    func resume() {}

    /// The host cancelled the operation.
    func cancel() { end(FileDone(failure: .cancelled)) }
}

/// Operations that one call on a worker does.
final class ShortOperation: FileOperation {
    override func start() {
        let path = path
        let request = request
        attempt { () throws(FileFailure) -> FileDone in
            switch request.operation {
            case .status:
                FileDone(status: try path.status(following: true))
            case .makeDirectory:
                try ShortOperation.makeDirectory(path, mode: request.mode)
            default:
                try ShortOperation.remove(path)
            }
        } then: { [self] done in
            end(done)
        }
    }

    private static func makeDirectory(_ path: GuestPath, mode: UInt16?) throws(FileFailure) -> FileDone {
        let isNew = try path.makeDirectories(mode: 0o755)
        // `mkdir` applies the creation mask; `chmod` does not.
        if let mode, path.withCString({ chmod($0, mode_t(mode)) }) != 0 { throw .last }
        return FileDone(flags: isNew ? .created : [], status: try path.status(following: true))
    }

    private static func remove(_ path: GuestPath) throws(FileFailure) -> FileDone {
        let status = try path.status(following: false)
        let failed = path.withCString { status.kind == .directory ? rmdir($0) : unlink($0) } != 0
        if failed { throw .last }
        return FileDone(status: status)
    }
}

/// The files' streams of the host.
final class FileStreams {
    private let port: ControlPort
    private let programs: Programs
    private let loop: EventLoop
    private let workers: Workers
    private var operations: [UInt32: FileOperation] = [:]

    init(port: ControlPort, programs: Programs, loop: EventLoop) {
        self.port = port
        self.programs = programs
        self.loop = loop
        workers = Workers(loop: loop)
    }

    /// Takes a `file` frame.
    func open(_ frame: Frame) throws(ProtocolError) {
        guard frame.stream != 0, operations[frame.stream] == nil else {
            throw .unexpectedFrame(.file, stream: frame.stream)
        }
        let request: FileRequest
        do throws(ProtocolError) {
            request = try FileRequest(payload: frame.payload)
        } catch {
            // Fails this request only. A protocol error would end the VM and the guest's programs.
            let done = FileDone(failure: .other, message: error.description)
            return HostStream(number: frame.stream, port: port).send(.done, done.payload)
        }
        let operation = make(request, stream: frame.stream)
        operations[frame.stream] = operation
        operation.start()
    }

    /// Takes a frame of a file's stream; false when it is of another one, or of one that has ended.
    func receive(_ frame: Frame) throws(ProtocolError) -> Bool {
        guard let operation = operations[frame.stream] else { return false }
        switch frame.type {
        case .range:
            try operation.send(try FileRange(payload: frame.payload))
        case .data where frame.payload.first == Channel.content.rawValue && frame.payload.count > 1:
            try operation.receive(frame.payload)
        case .end where frame.payload == [Channel.content.rawValue]:
            try operation.receiveEnd()
        case .credit:
            var reader = WireReader(frame.payload)
            operation.stream.grant(try reader.read())
            operation.resume()
        case .cancel:
            operation.cancel()
        default:
            throw .unexpectedFrame(frame.type, stream: frame.stream)
        }
        return true
    }

    /// The port's queue has room again.
    func resume() {
        for operation in operations.values { operation.resume() }
    }

    private func make(_ request: FileRequest, stream number: UInt32) -> FileOperation {
        let stream = HostStream(number: number, port: port)
        let onDone = { [unowned self] in operations[number] = nil }
        switch request.operation {
        case .read:
            return FileReading(request, stream: stream, workers: workers, onDone: onDone)
        case .write:
            return FileWriting(request, stream: stream, workers: workers, onDone: onDone)
        case .list:
            return FileListing(request, stream: stream, workers: workers, onDone: onDone)
        case .remove where request.flags.contains(.recursive):
            break
        case .status, .makeDirectory, .remove:
            return ShortOperation(request, stream: stream, workers: workers, onDone: onDone)
        case .pack, .unpack:
            break
        }
        let operation = TreeOperation(request, stream: stream, workers: workers, onDone: onDone)
        operation.programs = programs
        operation.loop = loop
        return operation
    }
}
