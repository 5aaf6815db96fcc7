# SPDX-License-Identifier: BSD-3-Clause
"""A store that answers as it is told to: it speaks the protocol, until it does not."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import hiredis

NOTHING = object()
PROBE = b"preswapd:" + bytes(16)
INFO = b"redis_version:7.7.7\r\nmaxmemory:0\r\n"
HANG_UP = b"\0hang up"


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def value_of(name: bytes) -> bytes:
    return b"value of " + name


def right(words: list[bytes]) -> bytes:
    """What a store answers that has everything."""
    match words[0].upper():
        case b"GET":
            return b"$-1\r\n" if words[1] == PROBE else bulk(value_of(words[1][-16:]))
        case b"SET" | b"CLIENT" | b"SELECT":
            return b"+OK\r\n"
        case b"DEL":
            return b":1\r\n"
        case b"PING":
            return bulk(words[1]) if len(words) > 1 else b"+PONG\r\n"
        case b"INFO":
            return bulk(INFO)
        case _:
            return b"-ERR unknown command\r\n"


class FakeStore:
    """`answer` and `greeting` may be replaced at any time; what ends in HANG_UP is the last one."""

    def __init__(self, folder: Path) -> None:
        self.answer: Callable[[list[bytes]], bytes] = right
        self.greeting = b""
        self.path = folder / "fake"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen()
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def say(self, data: bytes) -> None:
        """On every connection, though nobody asked."""
        for client in list(self._clients):
            with suppress(OSError):
                client.sendall(data)

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._clients.append(client)
                self._start(lambda client=client: self._serve(client))  # type: ignore[misc]

    def _serve(self, client: socket.socket) -> None:
        reader = hiredis.Reader(notEnoughData=NOTHING)
        with client, suppress(OSError):
            client.sendall(self.greeting.removesuffix(HANG_UP))
            if self.greeting.endswith(HANG_UP):
                return
            while received := client.recv(1 << 16):
                reader.feed(received)
                answers = b""
                while (words := reader.gets()) is not NOTHING:
                    answers += self.answer(words)
                client.sendall(answers.removesuffix(HANG_UP))
                if answers.endswith(HANG_UP):
                    break

    def close(self) -> None:
        for end in (self._listening, *self._clients):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
