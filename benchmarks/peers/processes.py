# SPDX-License-Identifier: Apache-2.0
"""Peers that are one process per call: plain Python, and Python in bubblewrap."""

import shutil
import subprocess
import sys

from measuring import Measurement, PeerError, Stopwatch

PYTHON = [sys.executable, "-c", "print(1+1)"]
SANDBOX = "--unshare-all --die-with-parent --ro-bind / / --dev /dev --proc /proc".split()


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


def run(command):
    try:
        with Stopwatch() as watch:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired as error:
        raise PeerError("%s did not end within 60 s" % command[0]) from error
    if ended.returncode != 0 or ended.stdout != b"2\n":
        text = ended.stderr.decode(errors="replace").strip()
        raise PeerError("%s ended with %d: %s" % (command[0], ended.returncode, text))
    return watch.milliseconds
