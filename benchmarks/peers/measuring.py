# SPDX-License-Identifier: Apache-2.0
"""What a measurement is, and the order in which measurements take turns."""

import dataclasses
import sys
import time
import typing


class PeerError(Exception):
    """Something that the operator can do something about."""


@dataclasses.dataclass
class Measurement:
    name: str
    what: str
    # Makes one call and returns its milliseconds; what comes before and after the call is not in them.
    call: typing.Callable[[], float]
    # "warm" calls come in blocks; before a "new" one there is a pause.
    kind: str = "warm"
    milliseconds: list = dataclasses.field(default_factory=list)


class Stopwatch:
    """`with Stopwatch() as watch: ...`, then `watch.milliseconds`."""

    def __enter__(self):
        self.started = time.perf_counter_ns()
        return self

    def __exit__(self, *_):
        self.milliseconds = (time.perf_counter_ns() - self.started) / 1e6


def rotated(items, turns):
    """The items, beginning with another one each turn: none always follows the same load at the same distance."""
    turns %= len(items) or 1
    return items[turns:] + items[:turns]


def run_warm(measurements, count, warmup, block, lead_in):
    """Blocks of each measurement in turn, so that the machine's noise hits all alike."""
    for measurement in measurements:
        progress("warm-up: " + measurement.name)
        for _ in range(warmup):
            measurement.call()
    done = 0
    turn = 0
    while done < count:
        size = min(block, count - done)
        progress("warm calls %d to %d of %d" % (done + 1, done + size, count))
        for measurement in rotated(measurements, turn):
            run_block(measurement, size, lead_in)
        done += size
        turn += 1


def run_block(measurement, size, lead_in):
    # The calls before it were another measurement's: what that left of the caches is nobody's fault.
    for _ in range(lead_in):
        measurement.call()
    measurement.milliseconds += [measurement.call() for _ in range(size)]


def run_new(measurements, count, pause):
    """One call of each measurement in turn; one of each before that is not counted."""
    for turn in range(count + 1):
        progress("new: %d of %d" % (turn, count) if turn else "new: warm-up")
        for measurement in rotated(measurements, turn):
            time.sleep(pause)
            milliseconds = measurement.call()
            if turn:
                measurement.milliseconds.append(milliseconds)


def progress(text):
    print("peers: " + text, file=sys.stderr, flush=True)
