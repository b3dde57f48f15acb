# SPDX-License-Identifier: Apache-2.0
"""A real server on a free port, with a data directory of its own."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("SWIFTLET_PROGRAM", str(ROOT / ".build/release/swiftlet"))
IMAGES = os.environ.get(
    "SWIFTLET_IMAGES_DIRECTORY", os.path.expanduser("~/.local/share/swiftlet/images")
)
# Templates are shared as images are: each takes some seconds of processor time to build.
TEMPLATES = os.environ.get("SWIFTLET_TEMPLATES_DIRECTORY", os.path.join(os.path.dirname(IMAGES), "templates"))
ACCELERATOR = os.environ.get("SWIFTLET_TEST_ACCELERATOR", "tcg")
# Tests that repeat what they do for many minutes do so in full only here; elsewhere a short form of each runs.
SOAK = os.environ.get("SWIFTLET_SOAK") == "1"


class Server:
    def __init__(self, *flags, variant="minimal", words=(PROGRAM,), directory=None, **settings):
        """`words`: what starts the program; settings are environment variables."""
        self.words = list(words)
        self.directory = directory or tempfile.mkdtemp(prefix="swiftlet-test-")
        self.flags = ["--image-variant", variant, "--accelerator", ACCELERATOR, *flags]
        self.settings = {"SWIFTLET_VCPU_COUNT": "1", "SWIFTLET_POOL_SIZE": "1", **settings}
        self.process = None
        self.start()

    def environment(self):
        environment = dict(os.environ, SWIFTLET_TEMPLATES_DIRECTORY=TEMPLATES)
        environment.update(SWIFTLET_DATA_DIRECTORY=self.directory, SWIFTLET_IMAGES_DIRECTORY=IMAGES)
        environment.update(self.settings)
        return environment

    def start(self):
        # Beside it: a directory of another user's is made by the server itself.
        self.log = open(self.directory + ".log", "ab")
        self.process = subprocess.Popen(
            [*self.words, "serve", "--port", "0", *self.flags],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=self.environment(),
            text=True,
        )
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            found = re.search(r"listens on (http://\S+:\d+)", line)
            if found:
                self.url = found.group(1)
                break
        else:
            raise RuntimeError("The server did not start: %s\n%s" % ("".join(lines), self.log_text()))
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.key = pathlib.Path(self.directory, "first-key").read_text().strip()

    def log_text(self):
        return pathlib.Path(self.directory + ".log").read_text(errors="replace")[-200_000:]

    def command(self, *words):
        return subprocess.run(
            [PROGRAM, *words], env=self.environment(), capture_output=True, text=True, timeout=120
        )

    def qemus(self):
        """The process ids of this server's QEMUs, those in a pool included."""
        return [pid for pid in descendants(self.process.pid) if "qemu" in command_name(pid)]

    def resident_megabytes(self):
        status = pathlib.Path("/proc/%d/status" % self.process.pid).read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) // 1024

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.log.close()
        log = pathlib.Path(self.directory + ".log")
        is_told = self.key in log.read_text(errors="replace")
        shutil.rmtree(self.directory, ignore_errors=True)
        log.unlink()
        assert not is_told, "The server wrote a key into its log"

    def session(self, **options):
        return Session(self, **options)


class Session:
    """A session and its calls, by plain HTTP."""

    def __init__(self, server, key=None, **options):
        self.server = server
        self.key = key or server.key
        body = {"api_key": self.key, "vm_lifetime_seconds": 900, "vcpu_count": 1, **options}
        reply = requests.post(server.url + "/v1/sessions/session", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        self.created = reply.json()
        self.id = self.created["session_id"]

    def post(self, path, body, timeout=700):
        return requests.post(
            self.server.url + path, json=body, headers={"X-API-Key": self.key}, timeout=timeout
        )

    def run(self, command, language="python", timeout=120, **more):
        reply = self.post(
            "/execute",
            {"command": command, "language": language, "session_id": self.id, "timeout": timeout, **more},
        )
        assert reply.status_code == 200, reply.text
        return reply.json()

    def bash(self, command, timeout=120):
        return self.run(command, "bash", timeout)

    def status(self):
        reply = requests.get(
            self.server.url + "/v1/sessions/status/" + self.id, headers={"X-API-Key": self.key}, timeout=30
        )
        assert reply.status_code == 200, reply.text
        return reply.json()

    def kill(self):
        return self.post("/kill", {"session_id": self.id})


def children(pid):
    files = pathlib.Path("/proc/%d/task" % pid).glob("*/children")
    try:
        return [int(child) for file in files for child in file.read_text().split()]
    except OSError:
        # It ended meanwhile.
        return []


def descendants(pid):
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


def command_name(pid):
    try:
        return pathlib.Path("/proc/%d/comm" % pid).read_text()
    except OSError:
        return ""


def wait_until(condition, seconds=60):
    """Waits for something to become true; returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("It did not happen within %d s" % seconds)


def signals_as_usual():
    """A `preexec_fn`. A shell that starts something in the background has SIGINT ignored there, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def gone(pid):
    return not os.path.exists("/proc/%d" % pid)


def unknown_session():
    return str(uuid.uuid4())
