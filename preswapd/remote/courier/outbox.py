# SPDX-License-Identifier: BSD-3-Clause
"""What is to go out of a socket that does not wait, in as few sends as it takes."""

import socket
import ssl

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Outbox:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.pieces: list[bytes] = []
        self.unsent = memoryview(b"")  # of what was begun to be sent
        self.bytes = 0  # of both

    def put(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.bytes += len(piece)

    def send(self) -> None:
        """What the socket takes now.  OSError: it is broken."""
        try:
            while self.unsent or self.pieces:
                if not self.unsent:
                    self.unsent = memoryview(b"".join(self.pieces))
                    self.pieces.clear()
                sent = self._sock.send(self.unsent)
                self.unsent = self.unsent[sent:]
                self.bytes -= sent
        except WOULD_BLOCK:
            pass
