// SPDX-License-Identifier: Apache-2.0

/// The agent's first words: it is up and its interpreters are being started.
package struct Hello: WireMessage {
    package var version: UInt16
    package var kernelRelease: String
    /// Memory that the guest kernel manages, in bytes.
    package var memory: UInt64

    package init(version: UInt16 = ProtocolLimits.version, kernelRelease: String, memory: UInt64) {
        self.version = version
        self.kernelRelease = kernelRelease
        self.memory = memory
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        version = try reader.read()
        kernelRelease = try reader.readString()
        memory = try reader.read()
    }

    package func write(to writer: inout WireWriter) {
        writer.write(version)
        writer.write(kernelRelease)
        writer.write(memory)
    }
}

/// The identity of a VM, sent before any user code runs.
package struct Prepare: WireMessage {
    /// An environment variable.
    package struct Variable: Equatable, Sendable {
        package var name: String
        package var value: String

        package init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    /// Identifies this restore of the VM; the answer repeats it.
    package var generation: [UInt8]
    /// Nanoseconds since 1970, UTC, on the host's clock.
    package var wallClock: UInt64
    /// Randomness from the host for the guest's kernel, 32 to 512 bytes.
    package var entropy: [UInt8]
    /// 32 lowercase hexadecimal digits, as /etc/machine-id has them.
    package var machineID: String
    package var hostName: String
    /// Bytes that the guest may still write to its disk; 0 for as many as fit.
    package var diskLimit: UInt64
    /// Added to the environment of every execution.
    package var environment: [Variable]

    package static let generationSize = 16

    package init(
        generation: [UInt8],
        wallClock: UInt64,
        entropy: [UInt8],
        machineID: String,
        hostName: String,
        diskLimit: UInt64 = 0,
        environment: [Variable]
    ) {
        self.generation = generation
        self.wallClock = wallClock
        self.entropy = entropy
        self.machineID = machineID
        self.hostName = hostName
        self.diskLimit = diskLimit
        self.environment = environment
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        generation = try reader.readBytes()
        guard generation.count == Prepare.generationSize else {
            throw .invalidValue(field: "generation length", value: UInt64(generation.count))
        }
        wallClock = try reader.read()
        entropy = try reader.readBytes()
        guard (32...512).contains(entropy.count) else {
            throw .invalidValue(field: "entropy length", value: UInt64(entropy.count))
        }
        machineID = try reader.readString()
        hostName = try reader.readString()
        diskLimit = try reader.read()
        let count = try reader.read(UInt32.self)
        environment = []
        for _ in 0..<count {
            environment.append(Variable(name: try reader.readString(), value: try reader.readString()))
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.write(generation)
        writer.write(wallClock)
        writer.write(entropy)
        writer.write(machineID)
        writer.write(hostName)
        writer.write(diskLimit)
        writer.write(UInt32(environment.count))
        for variable in environment {
            writer.write(variable.name)
            writer.write(variable.value)
        }
    }
}

/// The agent's answer to `Prepare`: the parts that are in force.
package struct Prepared: WireMessage {
    /// Things that must be this VM's own before user code runs.
    package struct Confirmation: OptionSet, Sendable, CustomStringConvertible {
        package let rawValue: UInt32

        package init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// The kernel's generator took the host's entropy and was reseeded.
        package static let randomness = Confirmation(rawValue: 1 << 0)
        package static let wallClock = Confirmation(rawValue: 1 << 1)
        package static let machineID = Confirmation(rawValue: 1 << 2)
        package static let hostName = Confirmation(rawValue: 1 << 3)
        /// Every live interpreter reseeded what it holds.
        package static let interpreters = Confirmation(rawValue: 1 << 4)
        /// The limit on the disk is in force.
        package static let diskLimit = Confirmation(rawValue: 1 << 5)

        package static let all: Confirmation = [
            .randomness, .wallClock, .machineID, .hostName, .interpreters, .diskLimit,
        ]

        /// Their names, as the API tells them.
        package var names: [String] {
            let all: [(Confirmation, String)] = [
                (.randomness, "randomness"), (.wallClock, "wall_clock"), (.machineID, "machine_id"),
                (.hostName, "host_name"), (.interpreters, "interpreters"), (.diskLimit, "disk_limit"),
            ]
            return all.filter { contains($0.0) }.map(\.1)
        }

        package var description: String { names.joined(separator: ", ") }
    }

    package var generation: [UInt8]
    package var confirmed: Confirmation

    package init(generation: [UInt8], confirmed: Confirmation) {
        self.generation = generation
        self.confirmed = confirmed
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        generation = try reader.readBytes()
        confirmed = Confirmation(rawValue: try reader.read())
    }

    package func write(to writer: inout WireWriter) {
        writer.write(generation)
        writer.write(confirmed.rawValue)
    }
}

/// A language that the agent runs.
package enum GuestLanguage: UInt8, Sendable, CaseIterable {
    /// One interpreter for the VM's life; its calls run one after another.
    case python = 1
    /// A fresh shell for each call.
    case bash = 2
    /// One interpreter for the VM's life, as for Python.
    case javascript = 3
}

/// Opens a stream. The source follows as `data` on `Channel.source`, then `end`; it runs when `end` has come.
package struct ExecuteRequest: WireMessage {
    package var language: GuestLanguage
    /// Milliseconds from the arrival of `end` until the agent ends the execution by itself; 0 for no limit.
    package var timeout: UInt32
    /// The length of the source in bytes, at most ``ProtocolLimits/maximumSource``.
    package var sourceLength: UInt32

    package init(language: GuestLanguage, timeout: UInt32, sourceLength: UInt32) {
        self.language = language
        self.timeout = timeout
        self.sourceLength = sourceLength
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        let code = try reader.read(UInt8.self)
        guard let language = GuestLanguage(rawValue: code) else {
            throw .invalidValue(field: "language", value: UInt64(code))
        }
        self.language = language
        timeout = try reader.read()
        sourceLength = try reader.read()
        guard sourceLength <= ProtocolLimits.maximumSource else {
            throw .invalidValue(field: "source length", value: UInt64(sourceLength))
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.write(language.rawValue)
        writer.write(timeout)
        writer.write(sourceLength)
    }
}

/// How an execution ended, from the guest's own `wait`.
package struct ExitReport: WireMessage {
    package enum Outcome: UInt8, Sendable {
        /// `code` is the exit code, 0...255.
        case exited = 1
        /// `code` is the number of the signal that ended the process.
        case signaled = 2
        /// The agent ended it at its timeout, or at a `cancel` with that reason; `code` is 124.
        case timedOut = 3
        /// The agent ended it at a `cancel`; `code` is 130.
        case cancelled = 4
    }

    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt32

        package init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// The interpreter that ran it is gone with all its variables; the next call gets a new one.
        package static let stateLost = Flags(rawValue: 1 << 0)
        /// The guest's out-of-memory killer ended a process while it ran.
        package static let outOfMemory = Flags(rawValue: 1 << 1)
        /// The guest's limit on processes refused a fork while it ran.
        package static let processLimit = Flags(rawValue: 1 << 2)
    }

    package var outcome: Outcome
    package var code: Int32
    package var flags: Flags
    /// Nanoseconds from the start of the execution to its end, on the guest's monotonic clock.
    package var wallTime: UInt64
    /// Nanoseconds of processor time, user and system, of the process and the children that it waited for.
    package var cpuTime: UInt64
    /// Bytes written between two calls that the agent could not keep for this one.
    package var droppedStdout: UInt64
    package var droppedStderr: UInt64

    package init(
        outcome: Outcome,
        code: Int32,
        flags: Flags = [],
        wallTime: UInt64,
        cpuTime: UInt64,
        droppedStdout: UInt64 = 0,
        droppedStderr: UInt64 = 0
    ) {
        self.outcome = outcome
        self.code = code
        self.flags = flags
        self.wallTime = wallTime
        self.cpuTime = cpuTime
        self.droppedStdout = droppedStdout
        self.droppedStderr = droppedStderr
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        let raw = try reader.read(UInt8.self)
        guard let outcome = Outcome(rawValue: raw) else { throw .invalidValue(field: "outcome", value: UInt64(raw)) }
        self.outcome = outcome
        code = try reader.read()
        flags = Flags(rawValue: try reader.read())
        wallTime = try reader.read()
        cpuTime = try reader.read()
        droppedStdout = try reader.read()
        droppedStderr = try reader.read()
        try check()
    }

    /// Refuses values that the agent never sends: the host calculates with these numbers.
    private func check() throws(ProtocolError) {
        let limit: UInt64 = 1 << 48
        guard droppedStdout < limit, droppedStderr < limit else {
            throw .invalidValue(field: "dropped", value: max(droppedStdout, droppedStderr))
        }
        let codes: ClosedRange<Int32> = outcome == .signaled ? 1...64 : 0...255
        guard codes.contains(code) else {
            throw .invalidValue(field: "code", value: UInt64(truncatingIfNeeded: code))
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.write(outcome.rawValue)
        writer.write(code)
        writer.write(flags.rawValue)
        writer.write(wallTime)
        writer.write(cpuTime)
        writer.write(droppedStdout)
        writer.write(droppedStderr)
    }
}

/// Why the agent did not run anything.
package struct ExecutionRefusal: WireMessage {
    package enum Code: UInt8, Sendable {
        /// Another execution of the language is running; the host must queue them.
        case busy = 1
        /// The interpreter or the shell could not be started.
        case cannotStart = 2
        /// The request contradicts itself, or came before `prepare`.
        case invalidRequest = 3
        /// The image lacks the language's interpreter.
        case noInterpreter = 4
    }

    package var code: Code
    package var message: String

    package init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    package init(from reader: inout WireReader) throws(ProtocolError) {
        let raw = try reader.read(UInt8.self)
        guard let code = Code(rawValue: raw) else { throw .invalidValue(field: "refusal", value: UInt64(raw)) }
        self.code = code
        message = try reader.readString()
    }

    package func write(to writer: inout WireWriter) {
        writer.write(code.rawValue)
        writer.write(message)
    }
}
