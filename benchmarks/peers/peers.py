# SPDX-License-Identifier: Apache-2.0
"""Measures what one would take instead of Swiftlet, and Swiftlet itself, in one run on one machine."""

import argparse
import contextlib
import json
import os
import signal
import sys

import processes
import report
from gateway import Gateway
from measuring import PeerError, run_new, run_warm
from swiftlet_server import SwiftletServer

JUPYTER = ("jupyter-warm", "jupyter-warm-plain", "jupyter-new")
PROCESSES = {
    "py": processes.host_python,
    "bash": processes.host_bash,
    "python": processes.plain_python,
    "bubblewrap": processes.bubblewrap,
    "gvisor-systrap": lambda: processes.gvisor("systrap"),
    "gvisor-ptrace": lambda: processes.gvisor("ptrace"),
}
GVISOR = ("gvisor-systrap", "gvisor-ptrace")
SWIFTLET = ("swiftlet-python", "swiftlet-bash", "swiftlet-new")
NAMES = (*JUPYTER, *PROCESSES, *SWIFTLET)


def arguments():
    parser = argparse.ArgumentParser(prog="peers", description=__doc__)
    parser.add_argument("--count", type=at_least(1), default=200, help="warm calls of each kind (200)")
    parser.add_argument("--new-count", type=at_least(1), default=20, help="new kernels, new sessions (20)")
    parser.add_argument("--warmup", type=at_least(0), default=20, help="calls of each kind that are not counted (20)")
    parser.add_argument("--block", type=at_least(1), default=20, help="warm calls of one kind before the next's (20)")
    parser.add_argument("--lead-in", type=at_least(0), default=2, help="calls before each block, not counted (2)")
    parser.add_argument("--new-session-pause", type=seconds, default=1.5, help="seconds before each new one (1.5)")
    parser.add_argument("--url", help="measure our server too, which runs there")
    parser.add_argument("--key", default=os.environ.get("SWIFTLET_API_KEY"), help="its key (SWIFTLET_API_KEY)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help="of: " + ", ".join(NAMES))
    parser.add_argument("--json", metavar="FILE", help="write every sample to it")
    options = parser.parse_args()
    if options.url and not options.key:
        parser.error("--url needs --key")
    if not options.url and set(options.only or ()) & set(SWIFTLET):
        parser.error("our server is measured with --url and --key")
    return options


def at_least(minimum):
    def number(text):
        if int(text) < minimum:
            raise ValueError
        return int(text)

    return number


def seconds(text):
    if not 0 <= float(text) <= 3600:
        raise ValueError
    return float(text)


def chosen(options):
    names = NAMES if options.url else (*JUPYTER, *PROCESSES)
    return [name for name in names if not options.only or name in options.only]


def prepare(names, options, cleanup):
    """The measurements of these names; starts what they need."""
    found = [PROCESSES[name]() for name in names if name in PROCESSES]
    if set(names) & set(SWIFTLET):
        server = SwiftletServer(options.url, options.key)
        cleanup.callback(server.close)
        found += server.measurements()
    if set(names) & set(JUPYTER):
        gateway = Gateway()
        cleanup.callback(gateway.close)
        found += gateway.measurements()
    return sorted((one for one in found if one.name in names), key=lambda one: NAMES.index(one.name))


def measure(options):
    facts = report.host()
    if set(GVISOR) & set(chosen(options)):
        facts["gvisor"] = processes.gvisor_version()
    with contextlib.ExitStack() as cleanup:
        measurements = prepare(chosen(options), options, cleanup)
        warm = [one for one in measurements if one.kind == "warm"]
        new = [one for one in measurements if one.kind == "new"]
        if warm:
            run_warm(warm, options.count, options.warmup, options.block, options.lead_in)
        if new:
            run_new(new, options.new_count, options.new_session_pause)
    facts["load_average_after"] = os.getloadavg()[0]
    settings = {name: value for name, value in vars(options).items() if name not in ("key", "json")}
    return report.document(facts, settings, measurements)


def main():
    options = arguments()
    # What cleans up also runs when this program is told to end.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        # Opened before the measurements: a path that cannot be written fails at once.
        with open(options.json, "a") if options.json else contextlib.nullcontext() as file:
            result = measure(options)
            if file:
                file.truncate(0)
                json.dump(result, file, indent=1)
                file.write("\n")
    except (PeerError, OSError) as error:
        sys.exit("peers: %s" % error)
    except KeyboardInterrupt:
        sys.exit(130)
    print(report.table(result))


if __name__ == "__main__":
    main()
