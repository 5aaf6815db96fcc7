# SPDX-License-Identifier: BSD-3-Clause
"""NAME.map: the state byte of each page, in shared memory; docs/concurrency.md has its values."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from preswapd.errors import RefusedError
from preswapd.preswap.files.durable import fresh_name
from preswapd.units import PAGE_SIZE

HOLE, DISK, PENDING, UNKNOWN, TMEM, LOST = 0x00, 0x0F, 0x33, 0x3C, 0xF0, 0xFF
PIECE_PAGES = 1 << 20


def map_bytes(size: int) -> int:
    """One byte a page, rounded up to a page of its own."""
    return -(-(size // PAGE_SIZE) // PAGE_SIZE) * PAGE_SIZE


def born(pages: int, zone: Iterable[range]) -> Iterator[bytes]:
    """Of a device of which nothing is known but its zone, which is on disk."""
    at = 0
    for part in zone:
        yield from filled(UNKNOWN, part.start - at)
        yield from filled(DISK, len(part))
        at = part.stop
    yield from filled(UNKNOWN, pages - at)


def pending(pages: int) -> Iterator[bytes]:
    """Of a device whose pages are on another host."""
    return filled(PENDING, pages)


def filled(state: int, pages: int) -> Iterator[bytes]:
    for at in range(0, pages, PIECE_PAGES):
        yield bytes([state]) * min(PIECE_PAGES, pages - at)


def create_map(path: Path, size: int, pieces: Iterable[bytes]) -> None:
    """Allocated in full, or OSError: a hole touched on a full tmpfs would be SIGBUS."""
    fresh = fresh_name(path)
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, map_bytes(size))
        at = 0
        for piece in pieces:
            at += os.pwrite(descriptor, piece, at)
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def states(descriptor: int, pages: int) -> Iterator[tuple[int, bytes]]:
    """(first page, state bytes), in order."""
    for at in range(0, pages, PIECE_PAGES):
        yield at, os.pread(descriptor, min(PIECE_PAGES, pages - at), at)


def change_states(descriptor: int, part: range, changes: Mapping[int, int]) -> int:
    """Before the device is served; returns how many pages were changed."""
    table = bytes(changes.get(state, state) for state in range(256))
    changed = 0
    for at in range(part.start, part.stop, PIECE_PAGES):
        old = os.pread(descriptor, min(PIECE_PAGES, part.stop - at), at)
        new = old.translate(table)
        if new != old:
            changed += sum(old.count(state) for state in changes)
            os.pwrite(descriptor, new, at)
    return changed


def outside(zone: Iterable[range], part: range) -> Iterator[range]:
    """The pieces of a range of pages that are not in the zone."""
    at = part.start
    for place in zone:
        if place.start >= part.stop:
            break
        if at < place.start:
            yield range(at, place.start)
        at = max(at, place.stop)
    if at < part.stop:
        yield range(at, part.stop)


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
