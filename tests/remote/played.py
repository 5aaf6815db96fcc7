# SPDX-License-Identifier: BSD-3-Clause
"""A courier that a test plays, with a store of its own: right, or wrong as it is told to be."""

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from preswapd.remote._remote import Remote
from tests.running import PATIENCE

HEAD = struct.Struct("<IBBBBQ")
NAME = 16
DONE, MISS, AWAY, ERROR = range(4)


def frame(op: bytes, ident: int, payload: bytes = b"", status: int = 0, index: int = 0) -> bytes:
    return HEAD.pack(len(payload), op[0], status, index, 0, ident) + payload


@dataclass
class Get:
    """What was asked for: its frame's number, and the names."""

    ident: int
    names: list[bytes]

    def value(self, index: int, value: bytes | None) -> bytes:
        if value is None:
            return frame(b"v", self.ident, status=MISS, index=index)
        return frame(b"v", self.ident, value, index=index)


class Store(dict[bytes, bytes]):
    """Names and values; and what was set last, for answers that are old."""

    def __init__(self) -> None:
        super().__init__()
        self.ever: deque[bytes] = deque(maxlen=4096)

    def __setitem__(self, name: bytes, value: bytes) -> None:
        super().__setitem__(name, value)
        self.ever.append(value)


@dataclass
class Played:
    """The far end of a Remote's socket.  `on_get` says what is sent for a get; None: the truth."""

    remote: Remote
    store: Store = field(default_factory=Store)
    on_get: Callable[[Get], bytes] | None = None
    on_set: Callable[[int, bytes, bytes], bytes] | None = None
    deletes: list[bytes] = field(default_factory=list)
    gets: int = 0
    # What goes out to it and is not read yet is so much at most, as the kernel counts it.
    room: int | None = None
    why: str | None = None

    def __enter__(self) -> Self:
        near, self.far = socket.socketpair()
        if self.room is not None:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.room)
        self.sending = threading.Lock()  # or what two threads send would mix
        self.held = threading.Event()  # while it is clear, nothing is answered
        self.held.set()
        self.remote.connect(near.detach())
        self.threads = [threading.Thread(target=run) for run in (self.serve, self.play)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.held.set()
        self.remote.disconnect()
        with suppress(OSError):
            self.far.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self.far.close()

    def serve(self) -> None:
        self.why = self.remote.serve()

    def play(self) -> None:
        with suppress(OSError):
            for op, ident, payload in self.frames():
                self.send(self.answer(op, ident, payload))

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        buffer = b""
        while True:
            part = self.far.recv(1 << 20)
            self.held.wait()
            if not part:
                return
            buffer += part
            while len(buffer) >= HEAD.size:
                size, op, _, _, _, ident = HEAD.unpack_from(buffer)
                if len(buffer) < HEAD.size + size:
                    break
                yield op, ident, buffer[HEAD.size : HEAD.size + size]
                buffer = buffer[HEAD.size + size :]

    def answer(self, op: int, ident: int, payload: bytes) -> bytes:
        if op == ord("g"):
            self.gets += 1
            get = Get(ident, names_of(payload))
            return self.on_get(get) if self.on_get else self.truth(get)
        if op == ord("s"):
            name, value = payload[:NAME], payload[NAME:]
            if self.on_set:
                return self.on_set(ident, name, value)
            self.store[name] = value
            return frame(b"s", ident)
        assert op == ord("d")
        for name in names_of(payload):
            self.deletes.append(name)
            self.store.pop(name, None)
        return b""

    def truth(self, get: Get) -> bytes:
        return b"".join(get.value(i, self.store.get(name)) for i, name in enumerate(get.names))

    def say(self, **status: object) -> None:
        self.send(frame(b"j", 0, json.dumps(status).encode()))

    def send(self, data: bytes) -> None:
        with self.sending:
            self.far.sendall(data)


def names_of(payload: bytes) -> list[bytes]:
    assert len(payload) % NAME == 0
    return [payload[at : at + NAME] for at in range(0, len(payload), NAME)]
