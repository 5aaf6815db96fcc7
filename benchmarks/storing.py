# SPDX-License-Identifier: BSD-3-Clause
"""Pages put into a preswapd server over NBD and taken out again, and what the server says then."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbd

from benchmarks.servers import Running
from preswapd.units import PAGE_SIZE

REQUEST = 128 << 10
# What guests read when they look for partitions goes to disk: pages begin behind it, and end before
# as much of the disk.
START = 8 << 20
REST_SECONDS = 15.0
# Empty slabs stay for a second or so before the host gets them back.
STEADY_SECONDS = 2.5
POLL_SECONDS = 0.1


@contextmanager
def connected(serving: Running) -> Iterator[Any]:
    handle = nbd.NBD()
    handle.connect_uri(serving.uri)
    try:
        yield handle
    finally:
        handle.shutdown()


def write(serving: Running, file: Path) -> int:
    """Writes the file's pages one after the other; how many."""
    size = file.stat().st_size
    with connected(serving) as handle, file.open("rb") as pages:
        for at in range(0, size, REQUEST):
            handle.pwrite(pages.read(REQUEST), START + at)
    return size // PAGE_SIZE


def check(serving: Running, file: Path) -> None:
    """Reads them back; RuntimeError where a byte differs."""
    with connected(serving) as handle, file.open("rb") as pages:
        for at in range(0, file.stat().st_size, REQUEST):
            wanted = pages.read(REQUEST)
            if handle.pread(len(wanted), START + at) != wanted:
                raise RuntimeError(f"{serving.server.name} returns other pages than were written")


def free_half(serving: Running, pages: int) -> int:
    """Trims a random half of the pages; how many."""
    chosen = random.Random(1).sample(range(pages), pages // 2)
    with connected(serving) as handle:
        for page in chosen:
            handle.trim(PAGE_SIZE, START + page * PAGE_SIZE)
    return len(chosen)


def at_rest(serving: Running) -> dict[str, int]:
    """The pool's counters once all is compressed and memory in use changes no more."""
    serving.settle()
    deadline = time.monotonic() + REST_SECONDS
    steady_since, used = time.monotonic(), -1
    while True:
        tmem = serving.tmem()
        now = time.monotonic()
        if tmem["mem_used_total"] != used:
            steady_since, used = now, tmem["mem_used_total"]
        if now - steady_since > STEADY_SECONDS or now > deadline:
            return tmem
        time.sleep(POLL_SECONDS)


def watch(
    serving: Running, seconds: float, figure: Callable[[dict[str, int]], float]
) -> list[tuple[float, float]]:
    """A figure of the pool's counters over time: seconds from now, and the figure."""
    begun = time.monotonic()
    seen: list[tuple[float, float]] = []
    while not seen or seen[-1][0] < seconds:
        seen.append((time.monotonic() - begun, figure(serving.tmem())))
        time.sleep(POLL_SECONDS)
    return seen
