# SPDX-License-Identifier: BSD-3-Clause
"""Sockets that were removed under the server, or could not be had at its start: made while it runs.

nbdkit and the control server accept on the numbers of descriptors.  A new socket takes the number
of the old one, so neither has to know; nbdkit only has to look at its descriptors again.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from preswapd.control.http import THREAD as CONTROL_THREAD
from preswapd.errors import RefusedError
from preswapd.log import ERROR, NOTICE, WARNING, Log, Throttle
from preswapd.server.directories import NOBODY_ELSE_WRITES, make_private
from preswapd.server.sockets import Address, answers, bind_tcp, bind_unix, is_silent

# A port that is taken is mostly another server's, for long.
RETRY_SECONDS = 5.0
# Ends nbdkit's wait for clients, and has no other meaning to it.
WAKE = signal.SIGUSR1

# Device and inode.
Identity = tuple[int, int]


class Way(Protocol):
    """A way in that may be closed."""

    def look(self) -> None:
        """Opens it again where it is closed; RefusedError when that cannot be done now."""


class Reopening:
    """All ways in, looked at once a second."""

    def __init__(self, ways: Sequence[Way], log: Log) -> None:
        self.ways = [(way, Throttle()) for way in ways]
        self.log = log

    def look(self) -> None:
        for way, complaints in self.ways:
            try:
                way.look()
            except RefusedError as error:
                if complaints.passes():
                    self.log(ERROR, str(error))


class UnixSocket:
    """What is listened on at a path; known again by its inode, as anybody may remove the name."""

    def __init__(self, path: Path, mode: int, descriptor: int, log: Log) -> None:
        self.path = path
        self.mode = mode
        self.descriptor = descriptor
        self.log = log
        self.identity = None if is_silent(descriptor) else identity_of(path)
        self.is_removed = False

    def look(self) -> None:
        now = identity_of(self.path)
        if (now is not None and now == self.identity) or self.is_removed:
            return
        if now is not None and answers(self.path):
            raise RefusedError(
                f"{self.path} is another program's socket now: new clients do not reach this"
                " server; when it is removed, this one makes its own within a second"
            )
        make_private(self.path.parent, NOBODY_ELSE_WRITES)
        replace(self.descriptor, bind_unix(self.path, self.mode).detach())
        self.identity = identity_of(self.path)
        self.log(WARNING, f"{self.path} was not there any more: it was made again")

    def remove(self) -> None:
        """Its name, at the end; another program's in its place stays."""
        self.is_removed = True
        if identity_of(self.path) == self.identity is not None:
            self.path.unlink(missing_ok=True)


class TcpSocket:
    """What is to be listened on at an address, and could not be at the start."""

    def __init__(
        self, address: Address, descriptor: int, opened: Callable[[], None], log: Log
    ) -> None:
        self.address = address
        self.descriptor = descriptor
        self.opened = opened
        self.log = log
        self.is_open = not is_silent(descriptor)
        self.next_time = time.monotonic() + RETRY_SECONDS

    def look(self) -> None:
        now = time.monotonic()
        if self.is_open or now < self.next_time:
            return
        self.next_time = now + RETRY_SECONDS
        try:
            sock = bind_tcp(*self.address)
        except RefusedError:  # as at the start, which was told
            return
        replace(self.descriptor, sock.detach())
        self.is_open = True
        self.opened()
        host, port = self.address
        self.log(NOTICE, f"{host}, port {port}: guests can connect there now")


def identity_of(path: Path) -> Identity | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def replace(descriptor: int, fresh: int) -> None:
    """The fresh socket takes the number; clients of the old one stay connected."""
    os.dup2(fresh, descriptor, inheritable=False)
    os.close(fresh)
    wake()


def wake() -> None:
    """nbdkit waits for clients in the first thread, and the control server in one of its own, with
    the descriptors as they were before."""
    main = threading.main_thread()
    for thread in threading.enumerate():
        if thread is main or thread.name == CONTROL_THREAD:
            assert thread.ident is not None
            signal.pthread_kill(thread.ident, WAKE)


def be_woken() -> None:
    """In the first thread, before it waits: otherwise the signal would end the process."""
    signal.signal(WAKE, lambda number, frame: None)
