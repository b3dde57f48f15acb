# SPDX-License-Identifier: Apache-2.0
"""Our own server, as its clients see it."""

import contextlib

from http_api import JSONConnection
from measuring import Measurement, PeerError, Stopwatch


class SwiftletServer:
    """Clean up with close(): it kills the session of the warm calls."""

    def __init__(self, url, key):
        self.key = key
        self.api = JSONConnection(url, {"X-API-Key": key})
        self.warm_session = None

    def measurements(self):
        return [
            Measurement(
                "swiftlet-python",
                "POST /execute python 1+1, one session, keep-alive",
                lambda: self.warm("1+1", "python", "2\n"),
            ),
            Measurement(
                "swiftlet-bash",
                "POST /execute bash true, one session, keep-alive",
                lambda: self.warm("true", "bash", ""),
            ),
            Measurement("swiftlet-new", "new session (from the pool, if there is one) + python 1+1", self.new, "new"),
        ]

    def warm(self, command, language, output):
        if self.warm_session is None:
            self.warm_session = self.create(3600)
        with Stopwatch() as watch:
            reply = self.execute(command, self.warm_session, language=language)
        check(reply, output)
        return watch.milliseconds

    def new(self):
        self.api.open_anew()
        session = None
        try:
            with Stopwatch() as watch:
                session = self.create(60)
                reply = self.execute("1+1", session)
        finally:
            if session:
                self.kill(session)
        check(reply, "2\n")
        return watch.milliseconds

    def create(self, lifetime):
        body = {"api_key": self.key, "vm_lifetime_seconds": lifetime}
        return self.api.call("POST", "/v1/sessions/session", body)["session_id"]

    def execute(self, command, session, **more):
        return self.api.call("POST", "/execute", {"command": command, "session_id": session, **more})

    def kill(self, session):
        self.api.call("POST", "/kill", {"session_id": session})

    def close(self):
        if self.warm_session:
            with contextlib.suppress(PeerError):
                self.kill(self.warm_session)
        self.api.close()


def check(reply, output):
    if reply.get("exit_code") != 0 or reply.get("stdout") != output:
        raise PeerError("The server's reply is not the expected one: %s" % str(reply)[:500])
