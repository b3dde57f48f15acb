// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// Waits for descriptors and times and calls whoever asked for them. Everything in the agent happens on it, one thing at a time.
final class EventLoop {
    typealias Handler = (_ events: UInt32) -> Void

    struct Timer: Hashable {
        fileprivate let number: UInt64
    }

    private struct Scheduled {
        let due: UInt64
        let number: UInt64
        let action: () -> Void
    }

    static let readable = EPOLLIN.rawValue
    static let writable = EPOLLOUT.rawValue

    private let epoll: Int32
    private var handlers: [Int32: Handler] = [:]
    /// Few at a time; the earliest is last.
    private var timers: [Scheduled] = []
    private var lastTimer: UInt64 = 0

    init() throws(BootError) {
        epoll = epoll_create1(O_CLOEXEC)
        guard epoll >= 0 else { throw BootError("epoll_create1", errno: errno) }
    }

    /// Calls the handler when the descriptor is ready, as long as it is: level-triggered.
    func watch(_ descriptor: Int32, for events: UInt32, _ handler: @escaping Handler) {
        let operation = handlers.updateValue(handler, forKey: descriptor) == nil ? EPOLL_CTL_ADD : EPOLL_CTL_MOD
        control(operation, descriptor, events)
    }

    /// Changes what a watched descriptor is watched for.
    func change(_ descriptor: Int32, to events: UInt32) {
        control(EPOLL_CTL_MOD, descriptor, events)
    }

    func unwatch(_ descriptor: Int32) {
        guard handlers.removeValue(forKey: descriptor) != nil else { return }
        control(EPOLL_CTL_DEL, descriptor, 0)
    }

    private func control(_ operation: Int32, _ descriptor: Int32, _ events: UInt32) {
        var event = epoll_event()
        event.events = events
        event.data.fd = descriptor
        if epoll_ctl(epoll, operation, descriptor, &event) != 0 {
            log("epoll_ctl \(operation) of \(descriptor): \(String(cString: strerror(errno)))")
        }
    }

    /// Calls once, after so many milliseconds.
    @discardableResult
    func schedule(milliseconds: UInt64, _ action: @escaping () -> Void) -> Timer {
        lastTimer += 1
        let due = monotonicTime() + milliseconds * 1_000_000
        let index = timers.firstIndex { $0.due <= due } ?? timers.endIndex
        timers.insert(Scheduled(due: due, number: lastTimer, action: action), at: index)
        return Timer(number: lastTimer)
    }

    func cancel(_ timer: Timer) {
        timers.removeAll { $0.number == timer.number }
    }

    /// Never returns.
    func run() -> Never {
        var ready = [epoll_event](repeating: epoll_event(), count: 32)
        while true {
            let count = epoll_wait(epoll, &ready, Int32(ready.count), timeout())
            for event in ready.prefix(Int(max(0, count))) {
                // A handler before may have taken this one away.
                handlers[event.data.fd]?(event.events)
            }
            let now = monotonicTime()
            while let next = timers.last, next.due <= now {
                timers.removeLast()
                next.action()
            }
        }
    }

    /// Milliseconds until the next timer, rounded up so that it is due then; -1 without one.
    private func timeout() -> Int32 {
        guard let next = timers.last else { return -1 }
        let now = monotonicTime()
        return next.due <= now ? 0 : Int32(clamping: (next.due - now + 999_999) / 1_000_000)
    }
}
