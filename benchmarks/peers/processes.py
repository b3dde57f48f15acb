# SPDX-License-Identifier: Apache-2.0
"""Peers that are one process per call: plain Python and bash, Python in bubblewrap, Python in gVisor."""

import os
import pathlib
import shutil
import subprocess
import sys

from measuring import Measurement, PeerError, Stopwatch

PYTHON = [sys.executable, "-c", "print(1+1)"]
SANDBOX = "--unshare-all --die-with-parent --ro-bind / / --dev /dev --proc /proc".split()


def host_python():
    """The unit of all ratios, as `swiftlet bench` has it too."""
    command = [sys.executable, "-c", "pass"]
    return Measurement("py", "python3 -c pass, a process per call", lambda: run(command, b""))


def host_bash():
    return Measurement("bash", "bash -c true, a process per call", lambda: run(["bash", "-c", "true"], b""))


def plain_python():
    return Measurement("python", "python3 -c 'print(1+1)', a process per call", lambda: run(PYTHON))


def bubblewrap():
    program = shutil.which("bwrap")
    if program is None:
        raise PeerError("bwrap is missing; install it: apt-get install bubblewrap (or leave it out: --only)")
    command = [program, *SANDBOX, *PYTHON]
    try:
        run(command)
    except PeerError as error:
        raise PeerError("bubblewrap does not work here (are user namespaces allowed?): %s" % error) from error
    what = "bwrap %s python3 -c 'print(1+1)', a process per call" % " ".join(SANDBOX)
    return Measurement("bubblewrap", what, lambda: run(command))


def bubblewrap_version():
    program = shutil.which("bwrap")
    if program is None:
        return None
    return subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()


def gvisor(platform):
    command = [gvisor_program(), "--platform=" + platform, "--network=none", "--ignore-cgroups"]
    # A user's own sandbox has no privileges to begin with.
    command += [] if os.geteuid() == 0 else ["--rootless"]
    command += ["do", *PYTHON]
    try:
        run(command)
    except PeerError as error:
        raise PeerError("gVisor does not work here; leave it out: --only ...: %s" % error) from error
    what = "runsc --platform=%s do python3 -c 'print(1+1)', a new sandbox per call" % platform
    return Measurement("gvisor-" + platform, what, lambda: run(command), "new")


def gvisor_program():
    """Debian's, unpacked into a directory of ours, unless RUNSC names another."""
    given = os.environ.get("RUNSC")
    if given:
        return given
    here = pathlib.Path(__file__).parent
    got = subprocess.run([here / "get-runsc", here / ".gvisor"], stdout=subprocess.PIPE, text=True)
    if got.returncode != 0:
        raise PeerError("gVisor cannot be had (are Debian's packages reachable?); leave it out: --only ...")
    return got.stdout.strip()


def gvisor_version():
    text = subprocess.run([gvisor_program(), "--version"], capture_output=True, text=True).stdout
    return text.partition("\n")[0]


def run(command, output=b"2\n"):
    try:
        with Stopwatch() as watch:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired as error:
        raise PeerError("%s did not end within 60 s" % command[0]) from error
    if ended.returncode != 0 or ended.stdout != output:
        text = (ended.stderr or ended.stdout).decode(errors="replace").strip()
        raise PeerError("%s ended with %d: %s" % (command[0], ended.returncode, text))
    return watch.milliseconds
