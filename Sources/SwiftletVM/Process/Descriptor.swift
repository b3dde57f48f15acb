// SPDX-License-Identifier: Apache-2.0

import CProcess
import Glibc

/// A file descriptor with one owner, closed when it goes out of scope.
struct Descriptor: ~Copyable {
    let number: Int32

    init(owning number: Int32) {
        self.number = number
    }

    deinit {
        close(number)
    }

    /// Opens a file for reading.
    static func reading(_ path: String) throws -> Descriptor {
        let number = open(path, O_RDONLY | O_CLOEXEC)
        guard number >= 0 else { throw MicroVMError.cannotStart("\(path): \(String(cString: strerror(errno)))") }
        return Descriptor(owning: number)
    }

    /// Opens a new file for reading and writing.
    static func creating(_ path: String) throws -> Descriptor {
        let number = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard number >= 0 else { throw MicroVMError.cannotStart("\(path): \(String(cString: strerror(errno)))") }
        return Descriptor(owning: number)
    }

    /// A file in memory with these bytes, at its beginning.
    static func memory(_ name: String, of bytes: [UInt8]) throws -> Descriptor {
        let file = Descriptor(owning: cprocess_memory_file(name))
        guard file.number >= 0, write(file.number, bytes, bytes.count) == bytes.count,
            lseek(file.number, 0, SEEK_SET) == 0
        else { throw MicroVMError.cannotStart("A file in memory: \(String(cString: strerror(errno)))") }
        return file
    }

    /// Opens /dev/null for reading and writing.
    static func null() throws -> Descriptor {
        let number = open("/dev/null", O_RDWR | O_CLOEXEC)
        guard number >= 0 else { throw MicroVMError.cannotStart("/dev/null: \(String(cString: strerror(errno)))") }
        return Descriptor(owning: number)
    }
}

/// Two connected stream sockets: one end stays here, the other goes to a child.
struct SocketPair: ~Copyable {
    /// The child's end.
    private(set) var theirs: Int32
    private var ours: Int32?

    init() throws {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
            throw MicroVMError.cannotStart("socketpair: \(String(cString: strerror(errno)))")
        }
        ours = ends[0]
        theirs = ends[1]
    }

    deinit {
        if let ours { close(ours) }
        if theirs >= 0 { close(theirs) }
    }

    /// Gives QEMU, at the other end of a QMP socket, a descriptor under a name, before anything else is said there.
    ///
    /// `getfd` takes the descriptor from the same message (SCM_RIGHTS, unix(7)); QEMU 7.2 migrates out to a named one only.
    func send(descriptor: Int32, named name: String) throws {
        let line = "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"\(name)\"}}\n"
        let opening = "{\"execute\":\"qmp_capabilities\"}\n"
        guard let ours, write(ours, opening, opening.utf8.count) == opening.utf8.count,
            cprocess_send_descriptor(ours, line, line.utf8.count, descriptor) == 0
        else { throw MicroVMError.cannotStart("A descriptor could not be sent: \(String(cString: strerror(errno)))") }
    }

    /// The child has its end; only when ours is the last do we see the end of the child's.
    mutating func closeTheirs() {
        close(theirs)
        theirs = -1
    }

    /// Gives our end to another owner; throws the second time.
    mutating func take() throws -> Int32 {
        guard let taken = ours else { throw MicroVMError.cannotStart("A socket was used twice") }
        ours = nil
        return taken
    }
}
