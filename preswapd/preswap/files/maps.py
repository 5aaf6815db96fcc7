# SPDX-License-Identifier: BSD-3-Clause
"""NAME.map: the state byte of each page, in shared memory; docs/concurrency.md has its values."""

import os
from collections.abc import Iterable
from pathlib import Path

from preswapd.errors import RefusedError
from preswapd.preswap.files.durable import fresh_name
from preswapd.units import PAGE_SIZE

DISK = 0x0F
PIECE_PAGES = 1 << 20


def map_bytes(size: int) -> int:
    """One byte a page, rounded up to a page of its own."""
    return -(-(size // PAGE_SIZE) // PAGE_SIZE) * PAGE_SIZE


def create_map(path: Path, size: int, on_disk: Iterable[tuple[int, int]]) -> None:
    """All holes but the byte ranges `on_disk`.

    Allocated in full, or OSError: a hole touched on a full tmpfs would be SIGBUS.
    """
    fresh = fresh_name(path)
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, map_bytes(size))
        for start, end in on_disk:
            fill(descriptor, start // PAGE_SIZE, -(-end // PAGE_SIZE))
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def fill(descriptor: int, first: int, end: int) -> None:
    for at in range(first, end, PIECE_PAGES):
        os.pwrite(descriptor, bytes([DISK]) * (min(end, at + PIECE_PAGES) - at), at)


def check_map(path: Path, size: int) -> None:
    """RefusedError when it is missing, of another size, or has holes."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise RefusedError(f"the map {path} is missing") from None
    if status.st_size != map_bytes(size):
        raise RefusedError(f"the map {path} is damaged: it has a wrong size")
    if status.st_blocks * 512 < map_bytes(size):
        raise RefusedError(f"the map {path} is damaged: it has holes")


def open_map(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def remove_map(path: Path) -> None:
    fresh_name(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
