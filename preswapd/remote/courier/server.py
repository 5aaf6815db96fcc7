# SPDX-License-Identifier: BSD-3-Clause
"""The courier's end of the socket to its server: frames come in, answers go out."""

import socket
from collections.abc import Callable

from preswapd.remote.courier.frames import HEADER, MOST_PAYLOAD, FrameError
from preswapd.remote.courier.loop import READ, WRITE, Loop
from preswapd.remote.courier.outbox import Outbox

HEADER_BYTES = HEADER.size
# Of one round, so that answers do not wait for long behind what comes in.
RECEIVED_BYTES = 64 << 10
# While the server does not read its answers, no more is asked for: what waits stays bounded.
MOST_UNREAD = 4 << 20

# What is done with a frame: (id, payload).  The payload is the buffer's, and gone afterwards.
Take = Callable[[int, memoryview], None]


class ServerGone(Exception):
    """It has closed its end, or ended."""


class Server:
    def __init__(self, sock: socket.socket, loop: Loop) -> None:
        self._sock = sock
        self._loop = loop
        self.takes: dict[int, Take] = {}
        self._buffer = bytearray(HEADER_BYTES + MOST_PAYLOAD + RECEIVED_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._out = Outbox(sock)
        self._is_to_be_flushed = False
        self._watched = READ
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._on_ready)

    def answer(self, kind: int, status: int, index: int, id_: int, payload: bytes = b"") -> None:
        """It goes out at the end of the round."""
        if not self._is_to_be_flushed:
            self._is_to_be_flushed = True
            self._loop.flush_later(self)
        self._out.put(HEADER.pack(len(payload), kind, status, index, 0, id_))
        if payload:
            self._out.put(payload)

    def flush(self) -> None:
        self._is_to_be_flushed = False
        if not self._watched & WRITE:
            self._write()
        self._watch()

    def _write(self) -> None:
        try:
            self._out.send()
        except OSError as error:
            raise ServerGone(str(error)) from None

    def _watch(self) -> None:
        wanted = 0 if self._out.bytes > MOST_UNREAD else READ
        if self._out.unsent:
            wanted |= WRITE
        if wanted != self._watched:
            self._watched = wanted
            self._loop.watch_for(self._sock.fileno(), wanted)

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
            self._watch()
        if events & ~WRITE:
            self._read()

    def _read(self) -> None:
        filled = self._filled
        try:
            received = self._sock.recv_into(self._view[filled : filled + RECEIVED_BYTES])
        except BlockingIOError:
            return
        except OSError as error:
            raise ServerGone(str(error)) from None
        if not received:
            raise ServerGone("it has closed its end")
        self._filled = filled + received
        self._keep(self._take_frames())

    def _take_frames(self) -> int:
        """Returns where the first frame begins that is not whole."""
        view, filled, begin = self._view, self._filled, 0
        while filled - begin >= HEADER_BYTES:
            length, kind, _, _, zero, id_ = HEADER.unpack_from(view, begin)
            take = self.takes.get(kind)
            if take is None or length > MOST_PAYLOAD or zero:
                raise FrameError(f"not a frame: {length} bytes of {kind:#x}")
            payload = begin + HEADER_BYTES
            end = payload + length
            if end > filled:
                break
            take(id_, view[payload:end])
            begin = end
        return begin

    def _keep(self, begin: int) -> None:
        rest = self._filled - begin
        if begin and rest:
            self._view[:rest] = self._buffer[begin : self._filled]
        self._filled = rest
