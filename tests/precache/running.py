# SPDX-License-Identifier: BSD-3-Clause
"""An image in this process, over a host and a file of the test's own."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preswapd.precache.image._image import Connection
from preswapd.precache.opening import open_image
from preswapd.precache.settings import ImageSpec
from preswapd.precache.sharing import Sharing
from preswapd.precache.watched import Watched
from preswapd.tmem import Host
from preswapd.units import PAGE_SIZE as PAGE

MIB = 1 << 20


def content(size: int, seed: int = 1) -> bytes:
    """Pages that compress, and every third that does not."""
    made = random.Random(seed)
    pages = [
        made.randbytes(PAGE) if page % 3 == 0 else made.randbytes(64) * (PAGE // 64)
        for page in range(-(-size // PAGE))
    ]
    return b"".join(pages)[:size]


@dataclass
class Shown:
    """`watched.look()` is the test's to call, and `clock` to set."""

    host: Host
    path: Path
    watched: Watched
    log: list[str]
    clock: list[float]

    @property
    def stats(self) -> dict[str, Any]:
        return self.watched.stats()

    def connect(self) -> Connection:
        return self.watched.connect()

    def again(self, **said: Any) -> Watched:
        """The same file as another image."""
        return watched(self.host, self.path, "lz4", self.log, self.clock, **said)

    def settle(self) -> None:
        """What the file is now, it has been for long."""
        self.watched.look()
        self.clock[0] += 10
        self.watched.look()

    def change(self, data: bytes, offset: int) -> None:
        """Somebody else writes to the file."""
        before = os.stat(self.path).st_ctime_ns
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)
        while os.stat(self.path).st_ctime_ns == before:  # within one tick of the clock
            time.sleep(0.001)
            os.utime(self.path)


def check_either(found: bytes, before: bytes, piece: bytes, offset: int) -> None:
    """What a write that failed leaves: each of its bytes is old or new, and all others are old."""
    end = offset + len(piece)
    assert len(found) == len(before)
    assert (found[:offset], found[end:]) == (before[:offset], before[end:])
    inside = zip(found[offset:end], before[offset:end], piece, strict=True)
    assert all(one in either for one, *either in inside)


def read(connection: Connection, offset: int, count: int) -> bytes:
    into = bytearray(count)
    connection.pread(into, offset)
    return bytes(into)


def watched(
    host: Host,
    path: Path,
    compress: str,
    log: list[str],
    clock: list[float],
    sharing: Sharing | None = None,
    **said: Any,
) -> Watched:
    spec = ImageSpec("base", path, **said)
    return Watched(
        host,
        spec,
        compress,
        open_image(path, spec.writable),
        lambda priority, text: log.append(text),
        sharing,
        now=lambda: 0.0,
        clock=lambda: clock[0],
    )


@contextmanager
def shown(path: Path, limit: int = 32 * MIB, compress: str = "lz4", **said: Any) -> Iterator[Shown]:
    """The file is served as an image, cached from the beginning; `said`: fields of ImageSpec, and
    `sharing`."""
    base = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    host = Host(base / "arena", limit, create=True)
    log: list[str] = []
    clock = [0.0]
    try:
        made = Shown(host, path, watched(host, path, compress, log, clock, **said), log, clock)
        made.settle()
        yield made
        made.watched.close()
    finally:
        host.close()
        shutil.rmtree(base)
