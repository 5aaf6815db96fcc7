# SPDX-License-Identifier: BSD-3-Clause
"""One connection to a node: commands go out together, and are answered in their order."""

import socket
from collections import deque
from collections.abc import Callable
from ssl import SSLSocket
from typing import Any, NamedTuple, Protocol

from hiredis import ProtocolError, Reader

from preswapd.remote.courier.loop import READ, WRITE, Loop
from preswapd.remote.courier.outbox import WOULD_BLOCK, Outbox

# What has come is taken out of it at once: one is enough for all.
BUFFER = bytearray(256 << 10)
# An answer that is not whole by then is not one that was asked for: the longest is the map of a
# cluster of a thousand nodes, each slot a range of its own.
MOST_UNFINISHED = 8 << 20
# What may wait for one node, so that a slow one does not fill the memory.
MOST_WAITING = 4096
MOST_WAITING_BYTES = 8 << 20

NOT_WHOLE = object()
# Taken in place of a reply: the connection ended before it.
LOST = object()

NOT_ASKED = "it answers what was not asked"


class LinkError(Exception):
    """The connection cannot be used any longer."""


class Request(NamedTuple):
    """A command that has gone out, and for whom."""

    # What happens with its answer: (link, request, reply).
    take: Callable[["Link", "Request", Any], None]
    command: bytes
    since: float
    id: int = 0
    # Which of a get's names.
    nth: int = 0
    # How often it was sent on to another node.
    hops: int = 0


class Connected(Protocol):
    """What a client library has connected: it knows how to end it."""

    def disconnect(self) -> None: ...


class Link:
    """`lost(why)` is called when it is of no use any more, and is to close it."""

    # Whose it is; Any, as a node knows its links.
    node: Any

    def __init__(
        self,
        node: Any,
        sock: socket.socket,
        connection: Connected,
        loop: Loop,
        patience: float,
        lost: Callable[["Link", str], None],
    ) -> None:
        self.node = node
        # How long an answer may take.
        self.patience = patience
        self.waiting: deque[Request] = deque()
        self.latency = 0.0
        # What is to come back next of those that tell whether answers are in step.
        self.token: object = NOT_WHOLE
        self._connection = connection
        self._sock = sock
        self._fd = sock.fileno()
        self._pending = sock.pending if isinstance(sock, SSLSocket) else none_pending
        self._loop = loop
        self._lost = lost
        self._is_open = True
        self._reader = Reader(notEnoughData=NOT_WHOLE)
        # Its types say bytes, and it takes what has a buffer.
        self._feed: Callable[[Any, int, int], None] = self._reader.feed
        self._unfinished = 0
        self._out = Outbox(sock)
        self._is_behind = False
        sock.setblocking(False)
        loop.watch(self._fd, self._on_ready)

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= MOST_WAITING or self._out.bytes >= MOST_WAITING_BYTES

    @property
    def is_late(self) -> bool:
        """The oldest command that is not answered has waited for too long."""
        return bool(self.waiting) and self._loop.now - self.waiting[0].since > self.patience

    def ask(self, request: Request) -> None:
        """It goes out at the end of the round."""
        if not self._out.pieces:
            self._loop.flush_later(self)
        self._out.put(request.command)
        self.waiting.append(request)

    def flush(self) -> None:
        if self._is_open:
            self._loop.call_at(self._loop.now + self.patience)
            if not self._is_behind:
                self._try(self._write)

    def close(self) -> list[Request]:
        """Ends it; returns what was not answered."""
        self._is_open = False
        self._loop.forget(self._fd)
        self._connection.disconnect()
        unanswered = list(self.waiting)
        self.waiting.clear()
        return unanswered

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._try(self._write)
        if events & ~WRITE and self._is_open:
            self._try(self._read)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, LinkError, ProtocolError, MemoryError) as error:
            self._lost(self, str(error) or type(error).__name__)

    def _write(self) -> None:
        self._out.send()
        if self._is_behind != bool(self._out.unsent):
            self._is_behind = not self._is_behind
            self._loop.watch_for(self._fd, READ | WRITE if self._is_behind else READ)

    def _read(self) -> None:
        """What has come.  TLS has decrypted more than was asked for where epoll does not see it."""
        try:
            self._receive()
            while self._is_open and self._pending():
                self._receive()
        except WOULD_BLOCK:
            pass

    def _receive(self) -> None:
        received = self._sock.recv_into(BUFFER)
        if not received:
            raise LinkError("it hung up")
        self._feed(BUFFER, 0, received)
        next_reply, waiting = self._reader.gets, self.waiting
        request = None
        while (reply := next_reply()) is not NOT_WHOLE:
            if not waiting:
                raise LinkError(NOT_ASKED)
            request = waiting.popleft()
            request.take(self, request, reply)
            if not self._is_open:
                return
        if request is not None:
            self._unfinished = 0
            seconds = self._loop.now - request.since
            self.latency += (seconds - self.latency) / 8 if self.latency else seconds
        elif (unfinished := self._unfinished + received) <= MOST_UNFINISHED:
            self._unfinished = unfinished
        else:
            raise LinkError("its answer does not end")


def none_pending() -> int:
    """What has come on a plain socket is where epoll sees it."""
    return 0
