// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgent
import Glibc

/// Serves the host: takes frames, runs code, reports how it ended.
final class Agent {
    let cgroups: Cgroups
    private let loop: EventLoop
    private let port: ControlPort
    private let programs: Programs
    private let shells: ShellPool
    private let files: FileStreams
    private var interpreters: [Interpreter] = []
    private var executions: [UInt32: Execution] = [:]
    private var disk = Disk()
    private var isPrepared = false
    private var isWarm = false
    private var isRehearsing = false

    init(port descriptor: Int32) throws(BootError) {
        cgroups = try Cgroups()
        loop = try EventLoop()
        programs = try Programs(cgroup: cgroups.programs, loop: loop)
        port = ControlPort(descriptor: descriptor, loop: loop)
        shells = ShellPool(target: 2, programs: programs, loop: loop)
        files = FileStreams(port: port, programs: programs, loop: loop)
    }

    /// Never returns.
    func run() -> Never {
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
        let known: [(GuestLanguage, [String], memory: Int)] = [
            (.python, ["/usr/bin/python3", "/run/swiftlet/python/runner.py"], 0),
            // A guest with little memory keeps it for its user until JavaScript is asked for.
            (
                .javascript, ["/usr/bin/node", "--no-force-async-hooks-checks", "/run/swiftlet/javascript/runner.js"],
                300 << 20
            ),
        ]
        for (language, program, memory) in known where access(program[0], X_OK) == 0 {
            let interpreter = Interpreter(language, program: program, programs: programs, loop: loop, agent: self)
            interpreter.onIdle = { [unowned self] in interpreterIsIdle() }
            interpreters.append(interpreter)
            if Cgroups.totalMemory() >= memory { interpreter.start() }
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
            // As with code: nothing is done in a guest that is not its own.
            guard isPrepared, executions[frame.stream] == nil else {
                throw .unexpectedFrame(.file, stream: frame.stream)
            }
            try files.open(frame)
        case .range:
            // Of a stream that has ended.
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

    // MARK: Becoming one's own

    private func prepare(_ request: Prepare) {
        programs.environment += request.environment.map { ($0.name, $0.value) }
        shells.adopt(hostName: request.hostName, withNewEnvironment: !request.environment.isEmpty)
        for interpreter in interpreters {
            interpreter.prepare(seed: Array(request.entropy.prefix(32)), variables: request.environment)
        }
        // From now on each interpreter reseeds what it holds before it runs any code.
        let confirmed = identify(request).union(.interpreters)
        port.send(Frame(.prepared, payload: Prepared(generation: request.generation, confirmed: confirmed).payload))
        // A host that has not heard yet may have sent code already: none runs in a VM that is not its own.
        guard confirmed == .all else { return }
        isPrepared = true
        startWaiting()
        shells.refill()
    }

    /// Gives the guest its own randomness, time, names and limits; returns what of it is in force.
    private func identify(_ request: Prepare) -> Prepared.Confirmation {
        var confirmed: Prepared.Confirmation = []
        if agent_reseed(request.entropy, request.entropy.count) == 0 { confirmed.insert(.randomness) }
        var time = timespec()
        time.tv_sec = time_t(request.wallClock / 1_000_000_000)
        time.tv_nsec = Int(request.wallClock % 1_000_000_000)
        if clock_settime(CLOCK_REALTIME, &time) == 0 { confirmed.insert(.wallClock) }
        if writeFile("/etc/machine-id", Array("\(request.machineID)\n".utf8)) { confirmed.insert(.machineID) }
        let hosts = "127.0.0.1 localhost \(request.hostName)\n::1 localhost ip6-localhost ip6-loopback\n"
        if sethostname(request.hostName, request.hostName.utf8.count) == 0,
            writeFile("/etc/hostname", Array("\(request.hostName)\n".utf8)), writeFile("/etc/hosts", Array(hosts.utf8))
        {
            confirmed.insert(.hostName)
        }
        if disk.limit(to: request.diskLimit) { confirmed.insert(.diskLimit) }
        return confirmed
    }

    private func interpreterIsIdle() {
        let awaited = interpreters.filter { $0.isStarted && !$0.isHopeless }
        if !isWarm || isRehearsing, awaited.allSatisfy(\.isIdle) {
            // The shells started ahead, too, come to rest.
            loop.schedule(milliseconds: isWarm ? 100 : 1_000) { [unowned self] in port.send(Frame(.warm)) }
            isWarm = true
            isRehearsing = false
        }
        startWaiting()
    }

    /// Runs the ways of a first call, so that an emulator has translated them and the caches are warm.
    ///
    /// - Parameter request: who the guest is for the time being.
    private func rehearse(_ request: Prepare) {
        guard !isPrepared else { return }
        isRehearsing = true
        _ = identify(request)
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
        execution.eventsBefore = cgroups.events()
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
            // Background children live on and may write on.
            self.end(execution, report: report, pumps: pumps) { pumps.forEach { $0.discard() } }
            shells.refill()
        }
    }

    /// Sends what is left of the output, then the report; then calls back.
    func end(_ execution: Execution, report: ExitReport, pumps: [OutputPump], then finished: @escaping () -> Void) {
        execution.state = .ending
        if let deadline = execution.deadline { loop.cancel(deadline) }
        execution.stop = {}
        var report = report
        if execution.started != 0 {
            let events = cgroups.events()
            if events.outOfMemoryKills > execution.eventsBefore.outOfMemoryKills { report.flags.insert(.outOfMemory) }
            if events.refusedForks > execution.eventsBefore.refusedForks { report.flags.insert(.processLimit) }
        }
        var left = pumps.count + (execution.stream.results == nil ? 0 : 1)
        let complete = { [unowned self] in
            execution.stream.send(.exit, report.payload)
            execution.stream.pumps = []
            execution.stream.results = nil
            executions[execution.stream.number] = nil
            finished()
        }
        guard left > 0 else { return complete() }
        let drained = {
            left -= 1
            if left == 0 { complete() }
        }
        execution.stream.results?.drain(drained)
        for pump in pumps { pump.drain(drained) }
    }
}
