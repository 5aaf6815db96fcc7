# SPDX-License-Identifier: BSD-3-Clause
"""How fast strangers come in over TCP: as fast as guests need after a restart, no faster for long.

nbdkit accepts whoever connects at once, and each is a thread that waits for the interpreter lock,
as requests of guests do: thousands a second hold guests up for many seconds.  So as soon as one has
come, the sockets on which they come are put aside for a moment, and for longer where many do.  Who
comes meanwhile waits in the system's short queue, or connects again.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable

from preswapd.server.reopening import replace
from preswapd.server.sockets import is_tcp, silent

# A handshake takes 2 ms of processor with the keys of the guide, and 12 with RSA of 4096 bits.
AT_ONCE = 128
A_SECOND = 50
# How many more nbdkit may have accepted before it is noticed that one has come.
QUEUE = 64


class Gate:
    """The descriptors on which nbdkit accepts; those that are not of TCP stay as they are."""

    def __init__(
        self, descriptors: Iterable[int] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.descriptors = tuple(descriptors)
        self.clock = clock
        self.left = float(
            AT_ONCE
        )  # how many may come now; below zero, of those that came too early
        self.since = clock()
        self.aside: list[tuple[int, socket.socket]] = []
        self.times_full = 0
        self.is_full = False

    @property
    def is_shut(self) -> bool:
        return bool(self.aside)

    def note(self) -> None:
        """One has come."""
        self.fill()
        self.left -= 1
        if not self.is_shut:
            self.shut()

    def look(self) -> None:
        """Once in a while, where it is shut."""
        self.fill()
        was_full, self.is_full = self.is_full, self.left < 1
        if self.is_full:
            self.times_full += not was_full
            return
        while self.aside:
            descriptor, sock = self.aside.pop()
            replace(descriptor, sock.detach())

    def fill(self) -> None:
        now = self.clock()
        self.left = min(self.left + (now - self.since) * A_SECOND, AT_ONCE)
        self.since = now

    def shut(self) -> None:
        with silent() as nothing:
            for descriptor in self.descriptors:
                sock = socket.socket(fileno=os.dup(descriptor))
                if is_tcp(sock):
                    sock.listen(QUEUE)
                    # nbdkit may be about to accept on it: then that fails, and does not wait.
                    os.dup2(nothing.fileno(), descriptor, inheritable=False)
                    self.aside.append((descriptor, sock))
                else:
                    sock.close()
