# SPDX-License-Identifier: Apache-2.0
"""A client of server-sent events that can be cut off, and comes back where it was."""

import base64
import json
import random

import requests


class Follower:
    """Collects what an execution's events say, over any number of connections."""

    def __init__(self, url, headers):
        self.url = url
        self.headers = headers
        self.last = None
        self.streams = {"stdout": bytearray(), "stderr": bytearray()}
        self.results = []
        self.exit = None
        self.execution = None
        self.connections = 0

    def begin(self, body, cut=None, **headers):
        """Posts code and follows it."""
        self._read(
            requests.post(
                self.url + "/execute",
                json=body,
                headers={**self.headers, "Accept": "text/event-stream", **headers},
                stream=True,
                timeout=60,
            ),
            cut,
        )

    def resume(self, cut=None):
        headers = dict(self.headers)
        if self.last:
            headers["Last-Event-ID"] = self.last
        self._read(
            requests.get(
                "%s/v1/executions/%s/events" % (self.url, self.execution), headers=headers, stream=True, timeout=60
            ),
            cut,
        )

    def _read(self, reply, cut):
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"] == "text/event-stream"
        self.connections += 1
        pending, seen = bytearray(), 0
        with reply:
            for piece in reply.iter_content(16384):
                seen += len(piece)
                if cut is not None and seen >= cut:
                    # The connection ends in the middle of whatever it is in.
                    pending += piece[: max(0, len(piece) - (seen - cut))]
                    self._take(pending)
                    return
                pending += piece
                self._take(pending)

    def _take(self, pending):
        while True:
            end = pending.find(b"\n\n")
            if end < 0:
                return
            self._event(bytes(pending[:end]).decode())
            del pending[: end + 2]

    def _event(self, text):
        fields = dict(line.split(": ", 1) for line in text.split("\n") if not line.startswith(":"))
        if not fields:
            return
        name, data = fields["event"], json.loads(fields["data"])
        if name == "start":
            self.execution = data["execution_id"]
        elif name == "exit":
            self.exit = data
        elif name == "result":
            self.results.append(data)
        else:
            raw = data["text"].encode() if "text" in data else base64.b64decode(data["base64"])
            # A gap or a repetition shows here.
            assert data["offset"] == len(self.streams[name])
            assert data["bytes"] == len(raw)
            self.streams[name] += raw
        self.last = fields.get("id", self.last)


def random_cuts(total, count, seed):
    generator = random.Random(seed)
    return [generator.randrange(1, 2 * total // count) for _ in range(count)]
