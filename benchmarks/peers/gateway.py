# SPDX-License-Identifier: Apache-2.0
"""The Jupyter peer: a kernel gateway of our own on a free loopback port."""

import contextlib
import ctypes
import importlib.util
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

from http_api import JSONConnection
from measuring import Measurement, PeerError, Stopwatch

MODULES = ("kernel_gateway", "ipykernel", "websocket")
PR_SET_PDEATHSIG = 1


def require_modules():
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        requirements = pathlib.Path(__file__).with_name("requirements.txt")
        install = "%s -m pip install -r %s" % (sys.executable, requirements)
        raise PeerError("missing: %s; start benchmarks/peers/run, or: %s" % (", ".join(missing), install))


class Gateway:
    """Clean up with close(): it ends the gateway and its kernels, by process id."""

    def __init__(self):
        require_modules()
        self.directory = tempfile.mkdtemp(prefix="swiftlet-peers-")
        self.process = None
        self.token = secrets.token_hex(16)
        self.kernel = None
        self.channels = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        port = free_port()
        self.headers = {"Authorization": "token " + self.token}
        self.api = JSONConnection("http://127.0.0.1:%d" % port, self.headers)
        self.socket_url = "ws://127.0.0.1:%d" % port
        libc = ctypes.CDLL(None)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kernel_gateway", *gateway_options(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                # Should this program be killed, the kernel ends the gateway.
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
                # The terminal's ^C is for this program, which then ends the gateway itself.
                start_new_session=True,
            )
        self.wait_until_ready()

    def environment(self):
        """Without the user's own kernels, settings and start-up files."""
        own = {name: self.directory for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR")}
        own.update(JUPYTER_RUNTIME_DIR=self.directory, KG_AUTH_TOKEN=self.token)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("KG_", "JUPYTER_", "SWIFTLET_"))
        }
        return {**kept, **own}

    @property
    def log_path(self):
        return os.path.join(self.directory, "gateway.log")

    def wait_until_ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(PeerError):
                self.api.call("GET", "/api")
                return
            time.sleep(0.1)
        log = pathlib.Path(self.log_path).read_text(errors="replace")
        raise PeerError("The kernel gateway did not start:\n" + log[-3000:])

    def measurements(self):
        execute = "websocket execute_request 1+1 until execute_reply and idle, one live kernel"
        return [
            Measurement("jupyter-warm", execute + ", acknowledging at once", lambda: self.warm(True)),
            Measurement("jupyter-warm-plain", execute + ", a client with no TCP settings", lambda: self.warm(False)),
            Measurement("jupyter-new", "POST /api/kernels + websocket + 1+1", self.new, "new"),
        ]

    def warm(self, acknowledges_at_once):
        if self.channels is None:
            self.kernel = self.create_kernel()
            self.channels = self.connect(self.kernel)
        return self.channels.timed_sum(acknowledges_at_once)

    def new(self):
        self.api.open_anew()
        kernel = channels = None
        try:
            with Stopwatch() as watch:
                kernel = self.create_kernel()
                channels = self.connect(kernel)
                channels.execute("1+1", True)
        finally:
            if channels:
                channels.close()
            if kernel:
                self.delete_kernel(kernel)
        channels.check("2")
        return watch.milliseconds

    def create_kernel(self):
        return self.api.call("POST", "/api/kernels", {"name": "python3"})["id"]

    def delete_kernel(self, kernel):
        self.api.call("DELETE", "/api/kernels/" + kernel)

    def connect(self, kernel):
        return Channels("%s/api/kernels/%s/channels" % (self.socket_url, kernel), self.headers)

    def close(self):
        if self.channels:
            self.channels.close()
        if self.kernel:
            with contextlib.suppress(PeerError):
                self.delete_kernel(self.kernel)
        if self.process:
            end(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)


class Channels:
    """A kernel's websocket."""

    def __init__(self, url, headers):
        import websocket

        self.failure = (OSError, websocket.WebSocketException)
        # The check of UTF-8 is slow in Python, and not the server's time. TCP_NODELAY is this package's default.
        try:
            self.socket = websocket.create_connection(url, header=headers, timeout=60, skip_utf8_validation=True)
        except self.failure as error:
            raise PeerError("The kernel's websocket: %s" % error) from error
        self.session = uuid.uuid4().hex
        self.result = None

    def timed_sum(self, acknowledges_at_once):
        with Stopwatch() as watch:
            self.execute("1+1", acknowledges_at_once)
        self.check("2")
        return watch.milliseconds

    def execute(self, code, acknowledges_at_once):
        request = uuid.uuid4().hex
        self.result = None
        try:
            self.socket.send(self.execute_request(request, code))
            awaited = {"reply", "idle"}
            while awaited:
                awaited.discard(self.receive(request, acknowledges_at_once))
        except self.failure as error:
            raise PeerError("The kernel's websocket: %s" % error) from error

    def execute_request(self, request, code):
        header = {"msg_id": request, "msg_type": "execute_request", "session": self.session, "username": "peers"}
        header.update(date="", version="5.3")
        content = {"code": code, "silent": False, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
        # No history in a database: our server has none either.
        content["store_history"] = False
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        return json.dumps({**message, "channel": "shell", "buffers": []})

    def receive(self, request, acknowledges_at_once):
        """Which end of the request the next message is."""
        if acknowledges_at_once:
            # The gateway leaves Nagle's algorithm on: its second small message waits for the acknowledgement of its
            # first, which Linux delays by 40 ms. The option lasts until the next packets, so it is set each time.
            self.socket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        message = json.loads(self.socket.recv())
        if message["parent_header"].get("msg_id") != request:
            return None
        kind, content = message["msg_type"], message["content"]
        if kind == "execute_result":
            self.result = content["data"]["text/plain"]
        if kind == "execute_reply":
            return "reply"
        return "idle" if kind == "status" and content["execution_state"] == "idle" else None

    def check(self, expected):
        if self.result != expected:
            raise PeerError("The kernel said %r, not %r" % (self.result, expected))

    def close(self):
        with contextlib.suppress(*self.failure):
            self.socket.close(timeout=1)


def gateway_options(port):
    own = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "log_level": "ERROR"}
    options = ["--KernelGatewayApp.%s=%s" % item for item in own.items()]
    # It would drop messages of a client that makes many short calls.
    return [*options, "--ZMQChannelsWebsocketConnection.limit_rate=False"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process):
    """Ends the gateway, and what it leaves of its kernels. A descriptor of a process never means another one."""
    kernels = []
    for child in children(process.pid):
        with contextlib.suppress(ProcessLookupError):
            kernels.append(os.pidfd_open(child))
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for kernel in kernels:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(kernel, signal.SIGKILL)
        os.close(kernel)


def children(pid):
    files = pathlib.Path("/proc/%d/task" % pid).glob("*/children")
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            found += [int(child) for child in file.read_text().split()]
    return found
