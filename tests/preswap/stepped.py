"""A process that works on an instance's files and stops at each change, and its other side.

`Stepper` starts this file as a program, with stepping.c, which does the stopping, loaded before
its C library.  Operations are lists that JSON can carry; `run_operation` does them.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.preswap.disk_model import PAGE
from tests.preswap.running import Running

ROOT = Path(__file__).parents[2]
Operation = Sequence[Any]
# A string instruction would be a stop for each byte.
NO_STRING_INSTRUCTIONS = (
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000"
)


def text_page(tag: int) -> bytes:
    """It compresses to few bytes, so that there are few stores, and says what it is."""
    return b"".join((b"page %03d part %d" % (tag, line // 16)).ljust(64) for line in range(64))


def run_operation(running: Running, operation: Operation) -> None:
    """On the device g1, unless it says which."""
    name, *rest = operation
    if name == "open":
        running.open()
    elif name in ("kill", "reboot"):
        getattr(running, name)()
    elif name == "discard":
        running.open(discard=True)
    elif name == "write":
        page, tag, flags = rest
        running.connect().pwrite(text_page(tag), page * PAGE, flags)
    elif name == "part":
        offset, text = rest
        running.connect().pwrite(text.encode(), offset)
    elif name in ("trim", "zero"):
        count, offset, flags = rest
        getattr(running.connect(), name)(count, offset, flags)
    elif name == "max_pages":
        running.device.max_pages = rest[0]
    elif name in ("remove", "mkswap"):
        getattr(running.instance, name)(rest[0], force=True)
    elif name == "recompress":
        running.device.recompress()
    elif name == "limit":
        running.instance.host.limit = rest[0]
    else:
        getattr(running.instance, name)(*rest)


class Stepper:
    """The child process, and a stop at each of its changes."""

    def __init__(self, library: Path) -> None:
        environment = {"GLIBC_TUNABLES": NO_STRING_INSTRUCTIONS, "LD_PRELOAD": str(library)}
        self.environment = {**os.environ, **environment}
        self.start()

    def start(self) -> None:
        self.idle = True
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.preswap.stepped", str(theirs.fileno())],
                cwd=ROOT,
                env=self.environment,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        self.socket.close()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(
        self, base: Path, setup: Sequence[Operation], steps: Sequence[Operation]
    ) -> Iterator[str]:
        """Yields "change" at each stop, "setup" and "done" after the setup and each step."""
        if not self.idle:  # a test failed and left it where it was
            self.close()
            self.start()
        self.idle = False
        if not self.idle:  # a test failed and left it where it was
            self.close()
            self.start()
        self.idle = False
        order = {"base": str(base), "setup": setup, "steps": steps}
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


def serve_order(channel: socket.socket, order: dict[str, Any]) -> None:
    preloaded = ctypes.CDLL(None)
    running = Running.small_at(Path(order["base"]))
    for operation in order["setup"]:
        run_operation(running, operation)
    tell(channel, b"u")
    preloaded.stepping_begin(channel.fileno())
    for operation in order["steps"]:
        run_operation(running, operation)
        tell(channel, b"d")
    preloaded.stepping_end()
    running.kill()
    channel.sendall(b"e")


def serve(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as lines:
        while line := lines.readline():
            serve_order(channel, json.loads(line))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
