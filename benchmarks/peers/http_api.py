# SPDX-License-Identifier: Apache-2.0
"""JSON over one keep-alive connection."""

import http.client
import json
import urllib.parse

from measuring import PeerError


class JSONConnection:
    def __init__(self, url, headers):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise PeerError("%r is no http:// URL" % url)
        self.url = url
        self.path = parts.path.rstrip("/")
        self.headers = {"Content-Type": "application/json", **headers}
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=120)

    def open_anew(self):
        """Connects now, so that the next call finds a connection which no one has closed for idleness."""
        self.close()
        # http.client sets TCP_NODELAY, and sends a request's head and body at once.
        self.connection.connect()

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        try:
            self.connection.request(method, self.path + path, data, self.headers)
            reply = self.connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise PeerError("%s %s%s: %s" % (method, self.url, path, error or type(error).__name__)) from error
        if reply.status >= 300:
            raise PeerError("%s %s%s: status %d: %s" % (method, self.url, path, reply.status, text[:500]))
        return json.loads(text) if text else None

    def close(self):
        self.connection.close()
