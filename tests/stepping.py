# SPDX-License-Identifier: BSD-3-Clause
"""A process that stops at each change of its files, and its other side.

`Stepper` starts a module of the tests as a program, with stepping.c, which does the stopping,
loaded before its C library; the module calls serve().  Operations are lists that JSON can carry.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
Operation = Sequence[Any]
Run = Callable[[Operation], object]
# A string instruction would be a stop for each byte.
NO_STRING_INSTRUCTIONS = (
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000"
)
# Each recovery has tables of 17 MiB, of which it touches little.  From the kernel they come as
# zeros; what the C library has kept of earlier ones it clears, which took most of the time.
MMAP_THRESHOLD = 1 << 20
M_MMAP_THRESHOLD = -3
TUNABLES = f"{NO_STRING_INSTRUCTIONS}:glibc.malloc.mmap_threshold={MMAP_THRESHOLD}"


class Stepper:
    """The child process, and a stop at each of its changes."""

    def __init__(self, library: Path, module: str) -> None:
        # Of this process, too, which recovers as often.
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        environment = {"GLIBC_TUNABLES": TUNABLES, "LD_PRELOAD": str(library)}
        self.environment = {**os.environ, **environment}
        self.module = module
        self.start()

    def start(self) -> None:
        self.idle = True
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, str(theirs.fileno())],
                cwd=ROOT,
                env=self.environment,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        self.socket.close()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(
        self, where: Path, setup: Sequence[Operation], steps: Sequence[Operation]
    ) -> Iterator[str]:
        """Yields "change" at each stop, "setup" and "done" after the setup and each step."""
        if not self.idle:  # a test failed and left it where it was
            self.close()
            self.start()
        self.idle = False
        order = {"where": str(where), "setup": setup, "steps": steps}
        self.socket.sendall(json.dumps(order).encode() + b"\n")
        while True:
            word = self.socket.recv(1)
            if word == b"e":
                self.idle = True
                return
            assert word, "the process that is stepped through has died"
            yield {b"s": "change", b"u": "setup", b"d": "done"}[word]
            self.socket.sendall(b"g")


def tell(channel: socket.socket, word: bytes) -> None:
    channel.sendall(word)
    if channel.recv(1) != b"g":
        sys.exit()


def serve(opened: Callable[[Path], AbstractContextManager[Run]]) -> None:
    """The child's side: `opened` gives what runs the operations on the files that lie there."""
    preloaded = ctypes.CDLL(None)
    with socket.socket(fileno=int(sys.argv[1])) as channel, channel.makefile("rb") as lines:
        while line := lines.readline():
            order = json.loads(line)
            with opened(Path(order["where"])) as run:
                for operation in order["setup"]:
                    run(operation)
                tell(channel, b"u")
                preloaded.stepping_begin(channel.fileno())
                for operation in order["steps"]:
                    run(operation)
                    tell(channel, b"d")
                preloaded.stepping_end()
            channel.sendall(b"e")
