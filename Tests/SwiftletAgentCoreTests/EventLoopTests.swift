// SPDX-License-Identifier: Apache-2.0

import Glibc
import SwiftletAgentCore
import Testing

@Suite(.timeLimit(.minutes(5))) struct EventLoopTests {
    /// What handlers have been called, in order.
    private final class Calls {
        var names: [String] = []
    }

    /// A clock that stands still until the test moves it.
    private final class Clock {
        var time: UInt64 = 1_000_000_000

        func advance(milliseconds: UInt64) { time += milliseconds * 1_000_000 }
    }

    @Test func `timers run in the order of their times, equal ones in the order in which they were set`() throws {
        let clock = Clock()
        let loop = try EventLoop { clock.time }
        let calls = Calls()
        loop.schedule(milliseconds: 40) { calls.names.append("late") }
        loop.schedule(milliseconds: 20) { calls.names.append("first") }
        loop.schedule(milliseconds: 20) { calls.names.append("second") }
        loop.schedule(milliseconds: 0) { calls.names.append("now") }
        loop.turn(waitingAtMost: 0)
        #expect(calls.names == ["now"])
        clock.advance(milliseconds: 40)
        loop.turn(waitingAtMost: 0)
        #expect(calls.names == ["now", "first", "second", "late"])
    }

    @Test func `a timer is not early, and runs once`() throws {
        let clock = Clock()
        let loop = try EventLoop { clock.time }
        let calls = Calls()
        loop.schedule(milliseconds: 30) { calls.names.append("due") }
        clock.advance(milliseconds: 29)
        loop.turn(waitingAtMost: 0)
        #expect(calls.names.isEmpty)
        clock.advance(milliseconds: 1)
        loop.turn(waitingAtMost: 0)
        clock.advance(milliseconds: 1_000)
        loop.turn(waitingAtMost: 0)
        #expect(calls.names == ["due"])
    }

    @Test func `a turn without a limit waits until the next timer is due`() throws {
        let loop = try EventLoop()
        let calls = Calls()
        let started = monotonicTime()
        loop.schedule(milliseconds: 30) { calls.names.append("due") }
        // One turn may be too few: epoll_wait's clock is coarser than the timers'.
        while calls.names.isEmpty { loop.turn() }
        #expect(monotonicTime() - started >= 30_000_000)
    }

    @Test func `a cancelled timer does not run, also when another one cancels it in the same turn`() throws {
        let clock = Clock()
        let loop = try EventLoop { clock.time }
        let calls = Calls()
        let cancelled = loop.schedule(milliseconds: 5) { calls.names.append("cancelled") }
        loop.cancel(cancelled)
        var victim: EventLoop.Timer?
        loop.schedule(milliseconds: 10) {
            calls.names.append("killer")
            if let victim { loop.cancel(victim) }
        }
        victim = loop.schedule(milliseconds: 10) { calls.names.append("victim") }
        loop.schedule(milliseconds: 30) { calls.names.append("end") }
        clock.advance(milliseconds: 30)
        loop.turn(waitingAtMost: 0)
        #expect(calls.names == ["killer", "end"])
    }

    @Test func `a readable descriptor calls its handler until it is no longer watched`() throws {
        let loop = try EventLoop()
        let calls = Calls()
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { ends.forEach { close($0) } }
        loop.watch(ends[0], for: EventLoop.readable) { _ in calls.names.append("ready") }
        loop.turn(waitingAtMost: 0)
        #expect(calls.names.isEmpty)
        #expect(write(ends[1], "x", 1) == 1)
        loop.turn(waitingAtMost: 60_000)
        loop.turn(waitingAtMost: 60_000)
        #expect(calls.names == ["ready", "ready"])
        loop.unwatch(ends[0])
        loop.turn(waitingAtMost: 0)
        #expect(calls.names.count == 2)
    }

    @Test func `a handler that removes another one keeps it from being called in the same turn`() throws {
        let loop = try EventLoop()
        let calls = Calls()
        var first: [Int32] = [-1, -1]
        var second: [Int32] = [-1, -1]
        try #require(pipe(&first) == 0 && pipe(&second) == 0)
        defer { (first + second).forEach { close($0) } }
        let (one, other) = (first[0], second[0])
        loop.watch(one, for: EventLoop.readable) { _ in
            calls.names.append("one")
            loop.unwatch(other)
        }
        loop.watch(other, for: EventLoop.readable) { _ in
            calls.names.append("other")
            loop.unwatch(one)
        }
        #expect(write(first[1], "x", 1) == 1)
        #expect(write(second[1], "x", 1) == 1)
        loop.turn(waitingAtMost: 60_000)
        #expect(calls.names.count == 1)
    }
}
