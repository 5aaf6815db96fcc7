# SPDX-License-Identifier: BSD-3-Clause
"""A real courier for tests, and the server's end of it."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.running import PATIENCE

HEADER = struct.Struct("<IBBBBQ")
FOUND, MISS, AWAY, ERROR = 0, 1, 2, 3
STORED, REFUSED = 0, 3
# Nothing is late on a busy machine; tests of what is late say so.
TIMEOUT_MS = 2000
COURIER = [sys.executable, "-m", "preswapd.remote.courier"]


class Answer(NamedTuple):
    kind: str
    status: int
    nth: int
    id: int
    payload: bytes


class RunningCourier:
    """The server's end: what it sends and what has come, in the order of frames."""

    def __init__(self, url: str, **settings: Any) -> None:
        ours, its = socket.socketpair()
        self.sock = ours
        self.sock.settimeout(PATIENCE)
        self.last_id = 0
        self.statuses: list[dict[str, Any]] = []
        self._received = bytearray()
        self._kept: list[Answer] = []
        given = {"url": url, "timeout_ms": TIMEOUT_MS, "ttl_s": 3600, "probe_s": 1, **settings}
        with its:
            self.process = subprocess.Popen(
                [*COURIER, "--fd", str(its.fileno())],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[its.fileno()],
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(given).encode())
        self.process.stdin.close()

    # --- frames ---

    def send(self, kind: str, id_: int, payload: bytes) -> None:
        self.sock.sendall(HEADER.pack(len(payload), ord(kind), 0, 0, 0, id_) + payload)

    def new_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def receive(self) -> Answer:
        """The next frame that is no status."""
        while True:
            if self._kept:
                return self._kept.pop(0)
            answer = self._next_frame()
            if answer.kind != "j":
                return answer
            self.statuses.append(json.loads(answer.payload))

    def _next_frame(self) -> Answer:
        while True:
            if len(self._received) >= HEADER.size:
                length, kind, status, index, zero, id_ = HEADER.unpack_from(self._received)
                end = HEADER.size + length
                if len(self._received) >= end:
                    assert zero == 0
                    payload = bytes(self._received[HEADER.size : end])
                    del self._received[:end]
                    return Answer(chr(kind), status, index, id_, payload)
            received = self.sock.recv(1 << 16)
            if not received:
                raise EOFError("the courier has ended")
            self._received += received

    def answers(self, id_: int, count: int) -> list[Answer]:
        """All of one request; what belongs to others is kept for them."""
        found: list[Answer] = []
        others: list[Answer] = []
        while len(found) < count:
            answer = self.receive()
            (found if answer.id == id_ else others).append(answer)
        self._kept = others + self._kept
        return found

    # --- what a server does ---

    def get(self, *names: bytes) -> list[Answer]:
        """In the order of the names."""
        id_ = self.new_id()
        self.send("g", id_, b"".join(names))
        found = sorted(self.answers(id_, len(names)), key=lambda answer: answer.nth)
        assert [answer.nth for answer in found] == list(range(len(names)))
        assert {answer.kind for answer in found} == {"v"}
        return found

    def value(self, name: bytes) -> bytes | None:
        """What the store has; None: a miss."""
        [answer] = self.get(name)
        assert answer.status in (FOUND, MISS), answer
        return answer.payload if answer.status == FOUND else None

    def status_of(self, name: bytes) -> int:
        return self.get(name)[0].status

    def set(self, name: bytes, value: bytes) -> int:
        """Returns its status."""
        id_ = self.new_id()
        self.send("s", id_, name + value)
        [answer] = self.answers(id_, 1)
        assert answer.kind == "s"
        return answer.status

    def delete(self, *names: bytes) -> None:
        self.send("d", 0, b"".join(names))

    # --- what it says of the store ---

    def wait_for(self, good: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The first of its statuses, from the last one on, that is good."""
        deadline = time.monotonic() + PATIENCE
        while not (self.statuses and good(self.statuses[-1])):
            assert time.monotonic() < deadline, f"no {what}: {self.statuses[-1:]}"
            answer = self._next_frame()
            if answer.kind == "j":
                self.statuses.append(json.loads(answer.payload))
            else:
                self._kept.append(answer)
        return self.statuses[-1]

    def wait_for_state(self, state: str) -> dict[str, Any]:
        return self.wait_for(lambda status: status["state"] == state, state)

    def wait_for_error(self, text: str) -> dict[str, Any]:
        return self.wait_for(lambda status: text in (status["error"] or ""), text)

    def ready(self) -> Self:
        self.wait_for_state("ok")
        return self

    # --- its end ---

    def said(self) -> str:
        """Its log, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def close(self) -> None:
        self.sock.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stderr is not None
            if not self.process.stderr.closed:
                print(self.said())
                self.process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def written(password: str, folder: Path) -> str:
    """The file that has it, as settings say."""
    file = folder / "password"
    file.touch(mode=0o600)
    file.write_text(password)
    return str(file)


def name_of(number: int) -> bytes:
    """Of a page: any 16 bytes."""
    return number.to_bytes(8, "little") + b"{}\r\n\0$*+"


def new_name() -> bytes:
    return os.urandom(16)
