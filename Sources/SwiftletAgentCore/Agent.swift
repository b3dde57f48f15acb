// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgent
import Glibc

/// Serves the host: receives frames, runs code and reports how it ended.
package final class Agent {
    private let guest: any GuestSystem
    private let known: [InterpreterProgram]
    private let interruptDelay: UInt64
    private let loop: EventLoop
    private let port: ControlPort
    private let programs: Programs
    private let shells: ShellPool
    private let files: FileStreams
    private var interpreters: [Interpreter] = []
    private var executions: [UInt32: Execution] = [:]
    private var isPrepared = false
    private var isWarm = false
    private var isRehearsing = false

    /// - Parameters:
    ///   - descriptor: the control port, non-blocking.
    ///   - directory: where programs start.
    ///   - interruptDelay: milliseconds between the steps that end an interpreter's call: interrupt, kill its children, kill it.
    package init(
        port descriptor: Int32,
        guest: any GuestSystem,
        interpreters: [InterpreterProgram],
        directory: String = "/app",
        interruptDelay: UInt64 = 100
    ) throws(BootError) {
        self.guest = guest
        self.interruptDelay = interruptDelay
        known = interpreters
        loop = try EventLoop()
        programs = try Programs(cgroup: guest.programsCgroup, directory: directory, loop: loop)
        port = ControlPort(descriptor: descriptor, loop: loop)
        shells = ShellPool(target: 2, programs: programs, loop: loop)
        files = FileStreams(port: port, programs: programs, loop: loop)
    }

    /// Never returns.
    package func run() -> Never {
        port.onFrame = { [unowned self] frame in
            do throws(ProtocolError) {
                try receive(frame)
            } catch {
                die("The host broke the protocol: \(error)")
            }
        }
        port.onRoom = { [unowned self] in
            executions.values.forEach { $0.stream.resume() }
            files.resume()
        }
        port.start()
        var system = utsname()
        uname(&system)
        let release = withUnsafeBytes(of: &system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        port.send(Frame(.hello, payload: Hello(kernelRelease: release, memory: UInt64(Cgroups.totalMemory())).payload))
        makeInterpreters()
        shells.refill(afterMilliseconds: 0)
        loop.run()
    }

    private func makeInterpreters() {
        for program in known where access(program.command[0], X_OK) == 0 {
            let interpreter = Interpreter(program, programs: programs, loop: loop, agent: self)
            interpreter.interruptDelay = interruptDelay
            interpreter.onIdle = { [unowned self] in interpreterIsIdle() }
            interpreters.append(interpreter)
            if Cgroups.totalMemory() >= program.memory { interpreter.start() }
        }
    }

    private func interpreter(of language: GuestLanguage) -> Interpreter? {
        interpreters.first { $0.language == language }
    }

    // MARK: Frames

    private func receive(_ frame: Frame) throws(ProtocolError) {
        if try files.receive(frame) { return }
        switch frame.type {
        case .prepare:
            prepare(try Prepare(payload: frame.payload))
        case .rehearse:
            rehearse(try Prepare(payload: frame.payload))
        case .ping:
            port.send(Frame(.pong, payload: frame.payload))
        case .execute:
            guard frame.stream != 0, executions[frame.stream] == nil else {
                throw .unexpectedFrame(.execute, stream: frame.stream)
            }
            let stream = HostStream(number: frame.stream, port: port)
            executions[frame.stream] = Execution(request: try ExecuteRequest(payload: frame.payload), stream: stream)
        case .data:
            try receiveSource(frame)
        case .end:
            if let execution = executions[frame.stream], execution.state == .receiving { accept(execution) }
        case .credit:
            var reader = WireReader(frame.payload)
            let bytes = try reader.read(UInt32.self)
            executions[frame.stream]?.stream.grant(bytes)
        case .cancel:
            guard let reason = frame.payload.first.flatMap(CancelReason.init) else {
                throw .invalidValue(field: "cancel reason", value: 0)
            }
            if let execution = executions[frame.stream] { cancel(execution, reason: reason) }
        case .file:
            // No operation on files, as no code, runs before `Prepared` confirms everything.
            guard isPrepared, executions[frame.stream] == nil else {
                throw .unexpectedFrame(.file, stream: frame.stream)
            }
            try files.open(frame)
        case .range:
            // Its stream has ended.
            break
        case .hello, .prepared, .pong, .exit, .refuse, .warm, .opened, .done:
            throw .unexpectedFrame(frame.type, stream: frame.stream)
        }
    }

    private func receiveSource(_ frame: Frame) throws(ProtocolError) {
        guard let execution = executions[frame.stream] else { return }
        guard execution.state == .receiving, frame.payload.first == Channel.source.rawValue,
            execution.source.count + frame.payload.count - 1 <= Int(execution.request.sourceLength)
        else { throw .unexpectedFrame(.data, stream: frame.stream) }
        let count = frame.payload.count - 1
        try execution.received.receive(count, stream: frame.stream)
        execution.source += frame.payload.dropFirst()
        if let credit = execution.received.consume(count) {
            var writer = WireWriter()
            writer.write(credit)
            execution.stream.send(.credit, writer.bytes)
        }
    }

    // MARK: The VM's identity

    private func prepare(_ request: Prepare) {
        programs.environment += request.environment.map { ($0.name, $0.value) }
        shells.setIdentity(hostName: request.hostName, withNewEnvironment: !request.environment.isEmpty)
        for interpreter in interpreters {
            interpreter.prepare(seed: Array(request.entropy.prefix(32)), variables: request.environment)
        }
        // From now on each interpreter reseeds what it holds before it runs any code.
        let confirmed = guest.apply(request).union(.interpreters)
        port.send(Frame(.prepared, payload: Prepared(generation: request.generation, confirmed: confirmed).payload))
        // The host may have sent code already: none runs before everything is confirmed.
        guard confirmed == .all else { return }
        isPrepared = true
        startWaiting()
        shells.refill()
    }

    private func interpreterIsIdle() {
        let awaited = interpreters.filter { $0.isStarted && !$0.isHopeless }
        if !isWarm || isRehearsing, awaited.allSatisfy(\.isIdle) {
            // By then the shells that are started ahead wait for their scripts.
            loop.schedule(milliseconds: isWarm ? 100 : 1_000) { [unowned self] in port.send(Frame(.warm)) }
            isWarm = true
            isRehearsing = false
        }
        startWaiting()
    }

    /// Executes the code paths of a first call, so that an emulator has translated them and the caches are warm.
    ///
    /// - Parameter request: the guest's identity until `prepare`.
    private func rehearse(_ request: Prepare) {
        guard !isPrepared else { return }
        isRehearsing = true
        _ = guest.apply(request)
        for interpreter in interpreters { interpreter.rehearse(seed: Array(request.entropy.prefix(32))) }
        if let shell = shells.run(Array(":".utf8)) {
            shell.onEnd = { [unowned self] _ in
                close(shell.stdout)
                close(shell.stderr)
                shells.refill()
            }
        }
        interpreterIsIdle()
    }

    // MARK: Executions

    private func accept(_ execution: Execution) {
        execution.state = .waiting
        guard execution.source.count == Int(execution.request.sourceLength) else {
            return refuse(execution, .invalidRequest, "The source is shorter than announced")
        }
        if execution.request.language == .bash, execution.source.contains(0) {
            return refuse(execution, .invalidRequest, "A bash script cannot contain NUL")
        }
        let language = execution.request.language
        if language != .bash {
            guard let interpreter = interpreter(of: language) else {
                return refuse(execution, .noInterpreter, "This image has no interpreter for \(language)")
            }
            let isBusy = executions.values.contains {
                $0 !== execution && $0.request.language == language && $0.state == .running
            }
            if isBusy { return refuse(execution, .busy, "Another \(language) execution is running") }
            if !interpreter.isStarted { interpreter.start() }
        }
        if execution.request.timeout > 0 {
            execution.deadline = loop.schedule(milliseconds: UInt64(execution.request.timeout)) {
                [unowned self, unowned execution] in cancel(execution, reason: .timeout)
            }
        }
        startWaiting()
    }

    private func startWaiting() {
        guard isPrepared else { return }
        for execution in executions.values.sorted(by: { $0.stream.number < $1.stream.number })
        where execution.state == .waiting {
            if execution.request.language == .bash {
                runBash(execution)
            } else if let interpreter = interpreter(of: execution.request.language), interpreter.isIdle {
                interpreter.run(execution)
            }
        }
    }

    private func cancel(_ execution: Execution, reason: CancelReason) {
        switch execution.state {
        case .receiving, .waiting:
            execution.cancelReason = execution.cancelReason ?? reason
            let report = execution.report(code: nil, signal: 0, processorTime: 0)
            end(execution, report: report, pumps: []) {}
        case .running where execution.cancelReason == nil:
            execution.cancelReason = reason
            execution.stop()
        case .running, .ending:
            break
        }
    }

    private func refuse(_ execution: Execution, _ code: ExecutionRefusal.Code, _ message: String) {
        if let deadline = execution.deadline { loop.cancel(deadline) }
        executions[execution.stream.number] = nil
        execution.stream.send(.refuse, ExecutionRefusal(code: code, message: message).payload)
    }

    private func runBash(_ execution: Execution) {
        guard let shell = shells.run(execution.source) else {
            return refuse(execution, .cannotStart, "The guest cannot start another shell")
        }
        execution.source = []
        execution.state = .running
        execution.started = monotonicTime()
        execution.eventsBefore = guest.events()
        let pumps = [
            OutputPump(descriptor: shell.stdout, channel: .stdout, loop: loop),
            OutputPump(descriptor: shell.stderr, channel: .stderr, loop: loop),
        ]
        execution.stream.pumps = pumps
        for pump in pumps { _ = pump.send(to: execution.stream) }
        let pid = shell.pid
        execution.stop = { kill(-pid, SIGKILL) }
        shell.onEnd = { [unowned self] end in
            execution.state = .ending
            let report = execution.report(code: end.code, signal: end.signal, processorTime: end.processorTime)
            // Background children live on, and what they write is dropped.
            self.end(execution, report: report, pumps: pumps) { pumps.forEach { $0.discard() } }
            shells.refill()
        }
    }

    func events() -> Cgroups.Events { guest.events() }

    /// Sends the rest of the output, then the report; then calls back.
    func end(_ execution: Execution, report: ExitReport, pumps: [OutputPump], then finished: @escaping () -> Void) {
        execution.state = .ending
        if let deadline = execution.deadline { loop.cancel(deadline) }
        execution.stop = {}
        var report = report
        if execution.started != 0 {
            let events = guest.events()
            if events.outOfMemoryKills > execution.eventsBefore.outOfMemoryKills { report.flags.insert(.outOfMemory) }
            if events.refusedForks > execution.eventsBefore.refusedForks { report.flags.insert(.processLimit) }
        }
        var remaining = pumps.count + (execution.stream.results == nil ? 0 : 1)
        let complete = { [unowned self] in
            execution.stream.send(.exit, report.payload)
            execution.stream.pumps = []
            execution.stream.results = nil
            executions[execution.stream.number] = nil
            finished()
        }
        guard remaining > 0 else { return complete() }
        let drained = {
            remaining -= 1
            if remaining == 0 { complete() }
        }
        execution.stream.results?.drain(drained)
        for pump in pumps { pump.drain(drained) }
    }
}
