# SPDX-License-Identifier: BSD-3-Clause
"""Rounds: what has arrived is read, what follows from it is written, in as few writes as there are
ends to write to."""

import select
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Flushed(Protocol):
    """An end that writes at the end of a round."""

    def flush(self) -> None: ...


class Loop:
    """Who waits for which file descriptor, and until when."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        # When somebody has to be called though nothing has arrived.
        self.alarm = self.now
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[int], None]] = {}
        self._flushed: deque[Flushed] = deque()

    def watch(self, fd: int, ready: Callable[[int], None]) -> None:
        self._ready[fd] = ready
        self._epoll.register(fd, READ)

    def watch_for(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Before it is closed."""
        del self._ready[fd]
        self._epoll.unregister(fd)

    def flush_later(self, end: Flushed) -> None:
        self._flushed.append(end)

    def call_at(self, moment: float) -> None:
        if moment < self.alarm:
            self.alarm = moment

    def round(self) -> None:
        """Waits for something to arrive, or the alarm."""
        events = self._epoll.poll(max(self.alarm - time.monotonic(), 0.0))
        self.now = time.monotonic()
        ready = self._ready
        for fd, happened in events:
            # One that came earlier in this round may have closed it.
            if (call := ready.get(fd)) is not None:
                call(happened)

    def flush(self) -> None:
        flushed = self._flushed
        while flushed:
            flushed.popleft().flush()
