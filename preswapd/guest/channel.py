# SPDX-License-Identifier: BSD-3-Clause
"""The host's end of the port over which init.sh takes commands."""

import base64
import socket
import time
from dataclasses import dataclass

LINE_LIMIT = 16 << 20
PIECE = 1 << 16


class ChannelClosedError(Exception):
    """The other end is gone: QEMU has ended."""


@dataclass(frozen=True)
class Outcome:
    """How a command in the guest ended; its output and error output are one."""

    status: int
    output: str


class Channel:
    """One command at a time.

    An answer that nobody waited for any more is thrown away when it comes, so a command that took
    too long costs its own answer only.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pending = bytearray()
        self._number = 0

    def greeting(self, timeout: float) -> Outcome:
        """What the guest says when it is up."""
        return self._answer(0, time.monotonic() + timeout)

    def run(self, command: str, timeout: float) -> Outcome:
        """TimeoutError when there is no answer in time, ChannelClosedError when QEMU ends."""
        deadline = time.monotonic() + timeout
        self._number += 1
        request = f"{self._number} {base64.b64encode(command.encode()).decode()}\n"
        self._connection.settimeout(timeout)
        try:
            self._connection.sendall(request.encode())
        except ConnectionError:
            raise ChannelClosedError from None
        return self._answer(self._number, deadline)

    def close(self) -> None:
        self._connection.close()

    def _answer(self, number: int, deadline: float) -> Outcome:
        while True:
            words = self._line(deadline).split(b" ")
            if len(words) == 3 and words[0] == str(number).encode():
                return Outcome(int(words[1]), base64.b64decode(words[2]).decode(errors="replace"))

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or len(self._pending) > LINE_LIMIT:
                raise TimeoutError
            self._connection.settimeout(left)
            try:
                piece = self._connection.recv(PIECE)
            except ConnectionError:
                raise ChannelClosedError from None
            if not piece:
                raise ChannelClosedError
            self._pending += piece
        line, _, rest = self._pending.partition(b"\n")
        self._pending = rest
        return bytes(line)
