# SPDX-License-Identifier: Apache-2.0
"""The interpreter's side of its conversation with the agent; docs/agent-protocol.md has the messages."""

import fcntl
import os
import socket
import struct

MAXIMUM_MESSAGE = 32 << 20
# A message's length and kind.
HEADER = struct.Struct("<IB")


class Control:
    """The agent's end of the conversation, kept from user code's children."""

    def __init__(self):
        high = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 200)
        os.close(3)
        self.socket = socket.socket(fileno=high)
        # Messages that leave together with the next one that does not wait.
        self.waiting = bytearray()

    def queue(self, kind, payload=b""):
        self.waiting += HEADER.pack(1 + len(payload), kind) + payload

    def flush(self):
        waiting, self.waiting = self.waiting, bytearray()
        self.socket.sendall(waiting)

    def send(self, kind, payload=b""):
        self.queue(kind, payload)
        self.flush()

    def receive(self):
        (length,) = struct.unpack("<I", self.exactly(4))
        if not 1 <= length <= MAXIMUM_MESSAGE:
            raise EOFError("the agent sent a message of %d bytes" % length)
        message = self.exactly(length)
        return message[0], message[1:]

    def exactly(self, count):
        pieces = bytearray()
        while len(pieces) < count:
            piece = self.socket.recv(min(count - len(pieces), 1 << 16))
            if not piece:
                raise EOFError("the agent closed its end")
            pieces += piece
        return bytes(pieces)


def take(payload, offset):
    """A field of a message behind its length, and where the next one begins."""
    (length,) = struct.unpack_from("<I", payload, offset)
    start = offset + 4
    if start + length > len(payload):
        raise EOFError("a field of the agent's message is cut off")
    return payload[start : start + length], start + length
