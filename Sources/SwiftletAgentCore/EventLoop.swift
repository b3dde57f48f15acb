// SPDX-License-Identifier: Apache-2.0

import CAgent
import Glibc

/// Waits for descriptors and timers and calls their handlers. All of the agent runs on it, one handler at a time.
package final class EventLoop {
    package typealias Handler = (_ events: UInt32) -> Void

    package struct Timer: Hashable {
        fileprivate let number: UInt64
    }

    private struct Scheduled {
        let due: UInt64
        let number: UInt64
        let action: () -> Void
    }

    package static let readable = EPOLLIN.rawValue
    package static let writable = EPOLLOUT.rawValue

    private let epoll: Int32
    private let clock: () -> UInt64
    private var handlers: [Int32: Handler] = [:]
    /// In the order of their times, the earliest last; there are few.
    private var timers: [Scheduled] = []
    private var lastTimer: UInt64 = 0
    private var ready = [epoll_event](repeating: epoll_event(), count: 32)

    /// - Parameter clock: nanoseconds of a clock that never goes back; timers are due by it.
    package init(clock: @escaping () -> UInt64 = monotonicTime) throws(BootError) {
        self.clock = clock
        epoll = epoll_create1(O_CLOEXEC)
        guard epoll >= 0 else { throw BootError("epoll_create1", errno: errno) }
    }

    /// Calls the handler when the descriptor is ready, as long as it is: level-triggered.
    package func watch(_ descriptor: Int32, for events: UInt32, _ handler: @escaping Handler) {
        let operation = handlers.updateValue(handler, forKey: descriptor) == nil ? EPOLL_CTL_ADD : EPOLL_CTL_MOD
        control(operation, descriptor, events)
    }

    /// Changes what a watched descriptor is watched for.
    package func change(_ descriptor: Int32, to events: UInt32) {
        control(EPOLL_CTL_MOD, descriptor, events)
    }

    package func unwatch(_ descriptor: Int32) {
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
    package func schedule(milliseconds: UInt64, _ action: @escaping () -> Void) -> Timer {
        lastTimer += 1
        let due = clock() + milliseconds * 1_000_000
        let index = timers.firstIndex { $0.due <= due } ?? timers.endIndex
        timers.insert(Scheduled(due: due, number: lastTimer, action: action), at: index)
        return Timer(number: lastTimer)
    }

    package func cancel(_ timer: Timer) {
        timers.removeAll { $0.number == timer.number }
    }

    /// Never returns.
    func run() -> Never {
        while true { turn() }
    }

    /// Waits until something is ready or due, and calls its handlers.
    ///
    /// - Parameter limit: milliseconds to wait at most; nil waits for as long as it takes.
    package func turn(waitingAtMost limit: Int32? = nil) {
        let timeout = timeout()
        let wait = limit.map { timeout < 0 ? $0 : min($0, timeout) } ?? timeout
        let count = epoll_wait(epoll, &ready, Int32(ready.count), wait)
        for event in ready.prefix(Int(max(0, count))) {
            // An earlier handler of this turn may have removed this one.
            handlers[event.data.fd]?(event.events)
        }
        let now = clock()
        while let next = timers.last, next.due <= now {
            timers.removeLast()
            next.action()
        }
    }

    /// Milliseconds until the next timer, rounded up so that it is due then; -1 without one.
    private func timeout() -> Int32 {
        guard let next = timers.last else { return -1 }
        let now = clock()
        return next.due <= now ? 0 : Int32(clamping: (next.due - now + 999_999) / 1_000_000)
    }
}
