// SPDX-License-Identifier: Apache-2.0

/// The system calls that a jailed QEMU may make: those that it was seen to make, and few more that its libraries may need.
///
/// Found with `strace -f` on QEMU 7.2 through boot, template, clone, pause, disk, reboot, panic and exit. Any other call ends the process
/// with SIGSYS. Format of the program: the kernel's Documentation/networking/filter.rst (classic BPF) and seccomp(2).
package struct SystemCallFilter: Equatable, Sendable {
    /// One step of a program: `struct sock_filter` of linux/filter.h.
    package struct Instruction: Equatable, Sendable {
        package var code: UInt16
        package var whenTrue: UInt8 = 0
        package var whenFalse: UInt8 = 0
        package var operand: UInt32
    }

    /// Whether /dev/kvm may be used.
    package var usesKVM: Bool

    package init(usesKVM: Bool) {
        self.usesKVM = usesKVM
    }

    /// Allowed whatever their arguments. The most frequent come first: kernels before 5.11 go through the list at each call.
    package static let allowed = words(
        """
        futex ppoll write read mprotect sendmsg recvmsg mmap poll madvise pread64 rt_sigprocmask pwrite64 brk preadv fcntl munmap
        pwritev lseek fallocate readv writev eventfd2 gettid getrandom clock_gettime
        open openat close access faccessat faccessat2 newfstatat fstat stat lstat statx statfs fstatfs readlink readlinkat getcwd
        pipe pipe2 dup dup2 dup3 select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
        timerfd_create timerfd_settime timerfd_gettime signalfd4 fdatasync fsync ftruncate fadvise64 sync_file_range
        preadv2 pwritev2 mremap msync mincore memfd_create mlock munlock membarrier
        rt_sigaction rt_sigreturn rt_sigpending rt_sigtimedwait sigaltstack tgkill restart_syscall
        clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage sysinfo uname getcpu
        getpid getppid getuid geteuid getgid getegid set_tid_address set_robust_list get_robust_list rseq arch_prctl prctl prlimit64 getrlimit
        sched_yield sched_getaffinity sched_getparam sched_getscheduler set_mempolicy get_mempolicy mbind
        recvfrom sendto shutdown getsockopt setsockopt getsockname getpeername seccomp exit exit_group
        """
    )

    /// As if the kernel did not have them. QEMU and glibc then use others: io_uring would go around every filter, and the flags of
    /// `clone3` cannot be seen by one.
    package static let missing = words("io_uring_setup clone3")

    /// Terminals and sockets, which a library may ask about: TCGETS, FIONREAD, FIONBIO, FIOCLEX.
    private static let plainRequests: [UInt32] = [0x5401, 0x541b, 0x5421, 0x5451]
    /// The type of KVM's requests, in bits 8 to 15; linux/kvm.h.
    private static let kvmType: UInt32 = 0xae

    private static func words(_ text: String) -> [SystemCall] {
        text.split(whereSeparator: \.isWhitespace).compactMap { SystemCall(named: String($0)) }
    }

    // MARK: The program

    private static let kill: UInt32 = 0x8000_0000
    private static let allow: UInt32 = 0x7fff_0000
    /// ENOSYS.
    private static let pretendMissing: UInt32 = 0x0005_0000 | 38

    /// Places in `struct seccomp_data`.
    private enum Place {
        static let number: UInt32 = 0
        static let architecture: UInt32 = 4
        static let firstArgument: UInt32 = 16
        static let secondArgument: UInt32 = 24
    }

    /// What the kernel runs at each call.
    package var program: [Instruction] {
        let x8664: UInt32 = 0xc000_003e
        var program = [load(Place.architecture), equals(x8664, skip: 1), answer(Self.kill), load(Place.number)]
        // The second set of calls, of the x32 interface, has this bit.
        program += [Instruction(code: 0x35, whenFalse: 1, operand: 0x4000_0000), answer(Self.kill)]
        for call in Self.allowed { program += [equals(call, otherwise: 1), answer(Self.allow)] }
        for call in Self.missing { program += [equals(call, otherwise: 1), answer(Self.pretendMissing)] }
        // QEMU itself is started with it; its own filter, of which this is not the place, forbids it from then on.
        program += [equals("execve", otherwise: 1), answer(Self.allow)]
        return program + threads + requests + [answer(Self.kill)]
    }

    /// The program as the kernel and bubblewrap read it.
    package var bytes: [UInt8] {
        program.flatMap { step in
            withUnsafeBytes(of: step.code.littleEndian, Array.init) + [step.whenTrue, step.whenFalse]
                + withUnsafeBytes(of: step.operand.littleEndian, Array.init)
        }
    }

    /// Threads, and no processes.
    private var threads: [Instruction] {
        let flagThread: UInt32 = 0x1_0000
        let steps = [
            load(Place.firstArgument), Instruction(code: 0x45, whenFalse: 1, operand: flagThread), answer(Self.allow),
            answer(Self.kill),
        ]
        return [equals("clone", otherwise: UInt8(steps.count))] + steps
    }

    /// The requests that `ioctl` may make.
    private var requests: [Instruction] {
        var steps = [load(Place.secondArgument)]
        for request in Self.plainRequests { steps += [equals(request, skip: 0, otherwise: 1), answer(Self.allow)] }
        if usesKVM {
            steps += [
                Instruction(code: 0x54, operand: 0xff00), equals(Self.kvmType << 8, skip: 0, otherwise: 1),
                answer(Self.allow),
            ]
        }
        steps.append(answer(Self.kill))
        return [equals("ioctl", otherwise: UInt8(steps.count))] + steps
    }

    private func load(_ place: UInt32) -> Instruction { Instruction(code: 0x20, operand: place) }

    private func answer(_ action: UInt32) -> Instruction { Instruction(code: 0x06, operand: action) }

    private func equals(_ value: UInt32, skip: UInt8, otherwise: UInt8 = 0) -> Instruction {
        Instruction(code: 0x15, whenTrue: skip, whenFalse: otherwise, operand: value)
    }

    private func equals(_ call: SystemCall, otherwise: UInt8) -> Instruction {
        equals(UInt32(call.number), skip: 0, otherwise: otherwise)
    }

    /// For a name that there is; ``SystemCall`` has a test for each.
    private func equals(_ name: String, otherwise: UInt8) -> Instruction {
        equals(SystemCall(named: name) ?? SystemCall(number: 0x3fff_ffff), otherwise: otherwise)
    }
}
