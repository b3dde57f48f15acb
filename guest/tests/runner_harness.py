# SPDX-License-Identifier: Apache-2.0
"""What the tests of the interpreters share: a program driven over its socket as the agent does it."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import threading


def refuse(word):
    raise AssertionError("%s is no JSON" % word)


class Runner:
    def __init__(self, command):
        mine, theirs = socket.socketpair()
        outputs = [os.pipe(), os.pipe()]

        def place():
            os.dup2(theirs.fileno(), 3)
            # As the agent does; a shell that started the tests in the background has SIGINT ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        # Descriptor 3 must not be one that Popen closes.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=outputs[0][1],
            stderr=outputs[1][1],
            pass_fds=[3],
            preexec_fn=place,
        )
        theirs.close()
        for _, end in outputs:
            os.close(end)
        self.socket = mine
        self.socket.settimeout(60)
        self.pipes = [reading for reading, _ in outputs]
        for pipe in self.pipes:
            os.set_blocking(pipe, False)
        assert self.receive() == (1, b"")

    def receive(self):
        (length,) = struct.unpack("<I", self.exactly(4))
        message = self.exactly(length)
        return message[0], message[1:]

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            assert piece, "The interpreter ended"
            data += piece
        return bytes(data)

    def send(self, kind, payload):
        self.socket.sendall(struct.pack("<IB", len(payload) + 1, kind) + payload)

    def prepare(self, seed, **variables):
        payload = struct.pack("<I", 32) + seed + struct.pack("<I", len(variables))
        for item in variables.items():
            for part in item:
                payload += struct.pack("<I", len(part.encode())) + part.encode()
        self.send(1, payload)
        assert self.receive() == (2, b"")

    def start(self, source):
        data = source.encode("utf-8", "surrogatepass")
        self.send(2, struct.pack("<I", len(data)) + data)

    def finish(self):
        """Waits for a call's end; `results` and `dropped` then have what it has shown."""
        self.results, self.dropped = [], 0
        while True:
            kind, payload = self.receive()
            if kind != 4:
                break
            result = json.loads(payload, parse_constant=refuse)
            if "dropped" in result:
                self.dropped += result["dropped"]
            else:
                assert list(result) == ["type", "data", "metadata"]
                self.results.append(result)
        assert kind == 3
        status, code, spent = struct.unpack("<BiQ", payload)
        return status, code, self.output(0), self.output(1), spent

    def output(self, index):
        data = b""
        while True:
            try:
                piece = os.read(self.pipes[index], 1 << 16)
            except BlockingIOError:
                return data.decode("utf-8", "replace")
            if not piece:
                return data.decode("utf-8", "replace")
            data += piece

    def output_until(self, index, end):
        """Waits for output that comes between two calls."""
        data = ""
        while not data.endswith(end):
            assert select.select([self.pipes[index]], [], [], 60)[0], "No more came than %r" % data
            data += self.output(index)
        return data

    def run(self, source):
        self.start(source)
        return self.finish()[:4]

    def close(self):
        self.socket.close()
        self.process.wait(10)

    def run_interrupted(self, source, delay=0.3):
        timer = threading.Timer(delay, lambda: self.process.send_signal(signal.SIGINT))
        timer.start()
        try:
            return self.run(source)
        finally:
            timer.join()
