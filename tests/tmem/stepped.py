"""A process that runs operations on an arena and stops after each store, and its other side.

`Stepper` starts this file as a program; stepping.c, loaded there, does the stopping.  Operations
are lists that JSON can carry: `run_operation` does them on the native store and on the model.
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
from typing import Any, Self, cast

from preswapd.tmem._tmem import Host
from tests.tmem import arena_file
from tests.tmem.model import Model
from tests.tmem.pages import make_page

ROOT = Path(__file__).parents[2]
LIMIT = 8 << 20
POOL = 0
Operation = Sequence[Any]
# A string instruction would be a stop for each byte.
NO_STRING_INSTRUCTIONS = (
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000"
)


def run_operation(store: Host | Model, operation: Operation) -> Any:
    name, *rest = operation
    if name == "put":
        obj, index, kind, tag = rest
        return store.put_page(POOL, obj, index, make_page(kind, tag))
    if name == "put_in":
        pool, index, kind, tag = rest
        return store.put_page(pool, 0, index, make_page(kind, tag))
    if name == "fill":
        return fill(store, *rest)
    if name == "get":
        pool, obj, index = rest
        return store.get_page(pool, obj, index, bytearray(4096))
    if name == "new_pool" and rest:
        uuid, flags = rest
        return store.new_pool(bytes.fromhex(uuid), flags)
    if name == "put_keep_old":
        obj, index, kind, tag = rest
        return store.put_page(POOL, obj, index, make_page(kind, tag), keep_old=True)
    if name == "forge":
        return forge(store, *rest)
    if name == "limit":
        store.limit = rest[0]
        return None
    if name == "maintain":
        return store.maintain(all=True)
    if name == "stage":
        return store.set_staging(True)
    return getattr(store, name)(*rest)


def fill(store: Host | Model, pool: int, count: int) -> None:
    """Raw pages; all are stored, for as long as that may be."""
    for index in range(count):
        assert store.put_page(pool, 0, index, make_page("noise", index))


def forge(store: Host | Model, obj: int, index: int, count: int) -> None:
    """Stores raw pages full of copies of the live header of page 0 of object 0."""
    page = bytes(4096)
    if isinstance(store, Host):
        (slot,) = (s for s in arena_file.slots_of(Path(store.path)) if s.handle == (POOL, 0, 0))
        data = arena_file.read_front(Path(store.path))
        page = data[slot.header_at : slot.header_at + 32] * 128
    for i in range(index, index + count):
        store.put_page(POOL, obj, i, page, compress="none")


class Stepper:
    """The child process, and a stop after each of its stores."""

    def __init__(self, library: Path) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.tmem.stepped", str(theirs.fileno()), str(library)],
                cwd=ROOT,
                env={**os.environ, "GLIBC_TUNABLES": NO_STRING_INSTRUCTIONS},
                pass_fds=[theirs.fileno()],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()
        self.process.wait()

    def run(
        self, arena: Path, create: bool, setup: Sequence[Operation], steps: Sequence[Operation]
    ) -> Iterator[str]:
        """Yields "store" at each stop, "setup" and "done" after the setup and each step."""
        order = {"arena": str(arena), "create": create, "setup": setup, "steps": steps}
        self.socket.sendall(json.dumps(order).encode() + b"\n")
        while True:
            word = self.socket.recv(1)
            if word == b"e":
                return
            yield {b"s": "store", b"u": "setup", b"d": "done"}[word]
            self.socket.sendall(b"g")


def mapping_of(path: str) -> tuple[int, int]:
    """Address and length of the one mapping of a file."""
    (line,) = (line for line in Path("/proc/self/maps").read_text().splitlines() if path in line)
    begin, end = (int(number, 16) for number in line.split()[0].split("-"))
    return begin, end - begin


def tell(channel: socket.socket, word: bytes) -> None:
    channel.sendall(word)
    if channel.recv(1) != b"g":
        sys.exit()


def serve_order(channel: socket.socket, library: ctypes.CDLL, order: dict[str, Any]) -> None:
    host = Host(order["arena"], LIMIT, create=order["create"])
    for operation in order["setup"]:
        run_operation(host, operation)
    tell(channel, b"u")
    base, length = mapping_of(order["arena"])
    library.stepping_begin(ctypes.c_void_p(base), ctypes.c_size_t(length), channel.fileno())
    for operation in order["steps"]:
        run_operation(host, operation)
        tell(channel, b"d")
    library.stepping_end()
    host.close()
    channel.sendall(b"e")


def serve(descriptor: int, library: ctypes.CDLL) -> None:
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as lines:
        while line := lines.readline():
            serve_order(channel, library, cast("dict[str, Any]", json.loads(line)))


if __name__ == "__main__":
    serve(int(sys.argv[1]), ctypes.CDLL(sys.argv[2]))
