// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import CAgent
import Glibc

/// A language's process, which keeps its variables from call to call and is restarted when it dies.
final class Interpreter {
    private enum State {
        /// Started; its modules are being imported. Becomes `idle`.
        case starting
        case idle
        case running(Execution, done: (InterpreterMessage) -> Void)
        /// It runs the agent's own code, so that the emulator translates it. Becomes `idle`.
        case rehearsing
        /// A call is over; the rest of its output is on its way to the host. Becomes `idle`.
        case finishing
        /// No process, until the next start.
        case gone
    }

    /// After more failed starts in a row than this, `warm` is sent without the interpreter.
    private static let failedStartLimit = 3

    let language: GuestLanguage
    private let command: [String]
    private let programs: Programs
    private let loop: EventLoop
    private let agent: Agent
    private var state = State.gone
    private var pid: pid_t = 0
    private var control: Int32 = -1
    private var input = InterpreterDecoder()
    private var chunk = [UInt8](repeating: 0, count: 64 * 1024)
    private var pumps: [OutputPump] = []
    /// The payload of `prepare`: this VM's own randomness and variables, sent before any code.
    private var identity: [UInt8]?
    /// The living process has confirmed its identity.
    private var hasIdentity = false
    private var stateLost = false
    private var failures = 0
    /// Number of answers until the rehearsal is over.
    private var rehearsal = 0
    /// Bytes of output that were lost with an interpreter between two calls, reported with the next one.
    private var carriedLoss: (stdout: UInt64, stderr: UInt64) = (0, 0)
    private var callStart: UInt64 = 0
    /// Nanoseconds of processor time that were spent before the current call.
    private var spentBefore: UInt64 = 0

    /// Milliseconds between the steps that end a call.
    var interruptDelay: UInt64 = 100
    /// Called when it is ready for code, at first and after each call.
    var onIdle: () -> Void = {}

    init(_ program: InterpreterProgram, programs: Programs, loop: EventLoop, agent: Agent) {
        language = program.language
        command = program.command
        self.programs = programs
        self.loop = loop
        self.agent = agent
    }

    var isIdle: Bool {
        if case .idle = state { true } else { false }
    }

    /// Whether it failed to start so often that `warm` does not wait for it.
    var isHopeless: Bool { failures > Interpreter.failedStartLimit }

    /// Whether it was started, even if that failed; false while it is to be started at its first call.
    var isStarted: Bool { control >= 0 || failures > 0 }

    // MARK: The process

    func start() {
        var stdout: [Int32] = [-1, -1]
        var stderr: [Int32] = [-1, -1]
        var sockets: [Int32] = [-1, -1]
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard null >= 0, agent_pipe(&stdout) == 0, agent_pipe(&stderr) == 0,
            socketpair(AF_UNIX, kind, 0, &sockets) == 0
        else {
            log("The interpreter's descriptors: \(String(cString: strerror(errno)))")
            for descriptor in [null] + stdout + stderr + sockets where descriptor >= 0 { close(descriptor) }
            startLater()
            return
        }
        let mine = sockets[0]
        // A stopped interpreter reads nothing: a write to it fails after this time.
        var patience = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(mine, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        let started = programs.start(
            command,
            descriptors: [null, stdout[1], stderr[1], sockets[1]]
        ) { [unowned self] end in ended(end, control: mine) }
        for descriptor in [null, stdout[1], stderr[1], sockets[1]] { close(descriptor) }
        guard let started else {
            for descriptor in [stdout[0], stderr[0], mine] { close(descriptor) }
            startLater()
            return
        }
        pid = started
        control = mine
        hasIdentity = false
        input = InterpreterDecoder()
        _ = fcntl(control, F_SETFL, O_NONBLOCK)
        loop.watch(control, for: EventLoop.readable) { [unowned self] _ in receive() }
        pumps = [
            OutputPump(descriptor: stdout[0], channel: .stdout, loop: loop),
            OutputPump(descriptor: stderr[0], channel: .stderr, loop: loop),
        ]
        pumps.forEach { $0.startBuffering() }
        state = .starting
    }

    /// Stores this VM's identity. It is sent right before the first code, together with that.
    func prepare(seed: [UInt8], variables: [Prepare.Variable]) {
        var writer = WireWriter()
        writer.write(seed)
        writer.write(UInt32(variables.count))
        for variable in variables {
            writer.write(variable.name)
            writer.write(variable.value)
        }
        identity = writer.bytes
    }

    /// Runs a `prepare` and a call that leave no state behind.
    func rehearse(seed: [UInt8]) {
        guard isIdle else { return }
        var writer = WireWriter()
        writer.write(seed)
        writer.write(UInt32(0))
        rehearsal = 2
        state = .rehearsing
        send(kind: 1, writer.bytes)
        writer = WireWriter()
        writer.write(Array("1 + 1".utf8))
        send(kind: 2, writer.bytes)
    }

    private func finishRehearsalStep() {
        rehearsal -= 1
        guard rehearsal == 0 else { return }
        for pump in pumps {
            pump.discard()
            pump.drain { pump.startBuffering() }
        }
        if case .rehearsing = state { state = .idle }
        onIdle()
    }

    private func ended(_ end: ProgramEnd, control: Int32) {
        if case .running(let execution, _) = state { takeLastResults(of: execution) }
        loop.unwatch(control)
        close(control)
        self.control = -1
        let before = state
        state = .gone
        // Its children may still write; only the call in which it died sends that.
        let pumps = pumps
        self.pumps = []
        switch before {
        case .running(let execution, _):
            failures = 0
            stateLost = false
            let spent = end.processorTime - min(spentBefore, end.processorTime)
            finish(execution, code: end.code, signal: end.signal, time: spent, lost: true, pumps: pumps)
            start()
        case .starting, .rehearsing:
            let how = end.code.map { "exit code \($0)" } ?? "signal \(end.signal)"
            log("\(command[0]) ended while it started: \(how)")
            failures += 1
            pumps.forEach { $0.discard() }
            if isHopeless { startLater() } else { start() }
            if failures == Interpreter.failedStartLimit + 1 { onIdle() }
        case .finishing:
            // The call's end is known; these pumps still send its output.
            stateLost = true
            startLater(milliseconds: 20)
        case .idle, .gone:
            stateLost = true
            let lost = pumps.map { $0.discard() }
            if lost.count == 2 { carriedLoss = (carriedLoss.stdout + lost[0], carriedLoss.stderr + lost[1]) }
            startLater(milliseconds: 20)
        }
    }

    private func startLater(milliseconds: UInt64 = 1_000) {
        loop.schedule(milliseconds: milliseconds) { [unowned self] in
            if case .gone = state { start() }
        }
    }

    // MARK: A call

    /// Runs a call, unless the interpreter has just died: then the call waits for the next one.
    func run(_ execution: Execution) {
        guard !hasDied else { return }
        callStart = clockTicks()
        execution.started = monotonicTime()
        execution.state = .running
        execution.eventsBefore = agent.events()
        execution.stream.pumps = pumps
        execution.stream.results = ResultQueue(stream: execution.stream) { [unowned self] in resumeReceiving() }
        execution.dropped.stdout = pumps[0].send(to: execution.stream) + carriedLoss.stdout
        execution.dropped.stderr = pumps[1].send(to: execution.stream) + carriedLoss.stderr
        carriedLoss = (0, 0)
        state = .running(execution) { [unowned self] message in
            let lost = stateLost
            stateLost = false
            // User code can write this message too, with any number.
            let (sum, isTooMuch) = spentBefore.addingReportingOverflow(message.processorTime)
            spentBefore = isTooMuch ? .max : sum
            finish(
                execution,
                code: message.exitCode,
                signal: 0,
                time: message.processorTime,
                lost: lost,
                pumps: pumps
            )
        }
        execution.stop = { [unowned self, unowned execution] in interrupt(execution, step: 0) }
        if !hasIdentity, let identity { send(kind: 1, identity) }
        var writer = WireWriter()
        writer.write(execution.source)
        execution.source = []
        send(kind: 2, writer.bytes)
    }

    /// Ends a call: interrupts it, then kills its children, then the interpreter.
    private func interrupt(_ execution: Execution, step: Int) {
        guard case .running(let current, _) = state, current === execution else { return }
        switch step {
        case 0:
            kill(pid, SIGINT)
            loop.schedule(milliseconds: interruptDelay) { [unowned self] in interrupt(execution, step: 1) }
        case 1:
            // While the interpreter waits for a child in C code, it does not see the interrupt.
            ProcessTable.descendants(of: pid, startedSince: callStart).forEach { kill($0, SIGKILL) }
            kill(pid, SIGINT)
            loop.schedule(milliseconds: interruptDelay) { [unowned self] in interrupt(execution, step: 2) }
        default:
            kill(pid, SIGKILL)
        }
    }

    private func finish(
        _ execution: Execution,
        code: Int32?,
        signal: Int32,
        time: UInt64,
        lost: Bool,
        pumps: [OutputPump]
    ) {
        var report = execution.report(code: code, signal: signal, processorTime: time)
        if lost { report.flags.insert(.stateLost) }
        execution.state = .ending
        if control >= 0 { state = .finishing }
        agent.end(execution, report: report, pumps: pumps) { [unowned self] in
            // If the interpreter lives, its threads may still write.
            if control >= 0, self.pumps.first === pumps.first {
                pumps.forEach { $0.startBuffering() }
                state = .idle
                onIdle()
            } else {
                pumps.forEach { $0.discard() }
            }
        }
    }

    // MARK: The socket

    private func send(kind: UInt8, _ payload: [UInt8]) {
        var message: [UInt8] = []
        withUnsafeBytes(of: UInt32(payload.count + 1).littleEndian) { message.append(contentsOf: $0) }
        message.append(kind)
        message += payload
        // Blocks until the interpreter reads, at most for the socket's send timeout.
        let flags = fcntl(control, F_GETFL)
        _ = fcntl(control, F_SETFL, flags & ~O_NONBLOCK)
        if !writeAll(message, to: control) { kill(pid, SIGKILL) }
        _ = fcntl(control, F_SETFL, flags)
    }

    private func receive() {
        let count = read(control, &chunk, chunk.count)
        // How it ended is reported by wait.
        guard count > 0 else {
            if count == 0 { loop.unwatch(control) }
            if count == 0 { kill(pid, SIGKILL) }
            return
        }
        input.append(chunk[..<count])
        takeMessages()
    }

    /// Handles the messages that have arrived, up to a result that exceeds the credit: then nothing more is read until credit comes.
    private func takeMessages() {
        var stream: HostStream?
        if case .running(let execution, _) = state { stream = execution.stream }
        while !isBlocked, let message = input.next() { handle(message) }
        if input.isBroken { kill(pid, SIGKILL) }
        if isBlocked { loop.unwatch(control) }
        // Results that came with the call's end have left together with it.
        stream?.flush()
    }

    private var isBlocked: Bool {
        if case .running(let execution, _) = state { execution.stream.results?.isEmpty == false } else { false }
    }

    private func resumeReceiving() {
        guard control >= 0 else { return }
        loop.watch(control, for: EventLoop.readable) { [unowned self] _ in receive() }
        takeMessages()
    }

    /// Adds the results that a call sent before its interpreter died.
    private func takeLastResults(of execution: Execution) {
        // A child of it may hold the socket and write without end.
        var remaining = 1 << 20
        while remaining > 0, case let count = read(control, &chunk, chunk.count), count > 0 {
            remaining -= count
            input.append(chunk[..<count])
        }
        while let message = input.next(), message.kind == .result { execution.stream.results?.add(message.payload) }
    }

    private func handle(_ message: InterpreterMessage) {
        switch (message.kind, state) {
        case (.ready, .starting):
            failures = 0
            spentBefore = processorTime()
            state = .idle
            onIdle()
        case (.prepared, .running) where !hasIdentity:
            hasIdentity = true
            // A later interpreter must not start from the same seed.
            identity = identity.map { Interpreter.reseeded($0) }
        case (.prepared, .rehearsing), (.done, .rehearsing):
            finishRehearsalStep()
        case (.result, .running(let execution, _)) where hasIdentity:
            execution.stream.results?.add(message.payload)
        case (.result, .rehearsing):
            break
        case (.done, .running(_, let done)) where hasIdentity:
            done(message)
        default:
            // User code can write to the descriptor; a message out of order kills the interpreter.
            kill(pid, SIGKILL)
        }
    }

    private static func reseeded(_ identity: [UInt8]) -> [UInt8] {
        var bytes = identity
        let random = open("/dev/urandom", O_RDONLY | O_CLOEXEC)
        guard random >= 0, bytes.count >= 36 else { return bytes }
        defer { close(random) }
        var seed = [UInt8](repeating: 0, count: 32)
        if read(random, &seed, seed.count) == seed.count { bytes.replaceSubrange(4..<36, with: seed) }
        return bytes
    }

    /// Whether it ended and is about to be reaped.
    private var hasDied: Bool {
        var info = siginfo_t()
        return waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_signo == SIGCHLD
    }

    /// What the interpreter's own threads have spent so far, in nanoseconds.
    private func processorTime() -> UInt64 {
        // The clock of another process; clock_getcpuclockid(3) makes the same number.
        let clock = clockid_t(bitPattern: (~UInt32(bitPattern: pid) << 3) | 2)
        var time = timespec()
        guard clock_gettime(clock, &time) == 0 else { return 0 }
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Clock ticks since the boot, as /proc counts a process's start.
    private func clockTicks() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return UInt64(time.tv_sec) * 100 + UInt64(time.tv_nsec) / 10_000_000
    }
}
