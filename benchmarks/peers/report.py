# SPDX-License-Identifier: Apache-2.0
"""What was measured, as JSON and as a table."""

import datetime
import importlib.metadata
import math
import os
import pathlib
import platform

import processes

PACKAGES = ("jupyter_kernel_gateway", "jupyter_server", "tornado", "ipykernel", "pyzmq", "websocket-client")
WARM_PEERS = ("py", "python", "bubblewrap", "jupyter-warm", "jupyter-warm-plain")
# Ours, and the peers to which it compares.
COMPARISONS = {
    "swiftlet-python": WARM_PEERS,
    "swiftlet-bash": ("bash", *WARM_PEERS),
    "swiftlet-new": ("py", "python", "bubblewrap", "gvisor-systrap", "gvisor-ptrace", "jupyter-new"),
}


def percentile(samples, percent):
    """By nearest rank: always a sample that was measured."""
    return sorted(samples)[max(math.ceil(len(samples) * percent / 100), 1) - 1]


def host():
    return {
        "cpu_model": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python_version": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load_average_before": os.getloadavg()[0],
        "bubblewrap": processes.bubblewrap_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def document(host_facts, settings, measurements):
    return {
        "host": host_facts,
        "settings": settings,
        "samples": [sample(measurement) for measurement in measurements],
        "ratios": ratios(measurements),
    }


def sample(measurement):
    values = measurement.milliseconds
    summary = {"n": len(values), **{"p%d" % percent: percentile(values, percent) for percent in (50, 90, 99)}}
    return {"name": measurement.name, "what": measurement.what, **summary, "milliseconds": values}


def ratios(measurements):
    """Our p50 by a peer's p50: below 1, ours is faster."""
    medians = {measurement.name: percentile(measurement.milliseconds, 50) for measurement in measurements}
    return {
        ours: {peer: medians[ours] / medians[peer] for peer in peers if peer in medians}
        for ours, peers in COMPARISONS.items()
        if ours in medians
    }


def table(report):
    """Each row's p50 also as a multiple of `py`'s; and of each of ours, how it compares to its peers."""
    medians = {entry["name"]: entry["p50"] for entry in report["samples"]}
    lines = ["%-20s %5s %10s %10s %10s %9s" % ("milliseconds", "N", "p50", "p90", "p99", "p50 / py")]
    for entry in report["samples"]:
        numbers = "%-20s %5d %10.2f %10.2f %10.2f" % tuple(entry[key] for key in ("name", "n", "p50", "p90", "p99"))
        unit = " %9.2f" % (entry["p50"] / medians["py"]) if "py" in medians else ""
        lines.append(numbers + unit)
    for ours, peers in report["ratios"].items():
        lines += ["", "p50 of %s by that of" % ours]
        lines += ["  %-18s %9.3f" % item for item in peers.items()]
    return "\n".join(lines)
