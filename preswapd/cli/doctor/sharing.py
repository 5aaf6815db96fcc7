# SPDX-License-Identifier: BSD-3-Clause
"""doctor's sum of who shares a file system of shared memory: pools, and files of other programs.

A sparse file there is a promise: a program that touches a page of it when nothing is left dies by
SIGBUS.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.host.filesystems import free_bytes, is_there, total_bytes
from preswapd.paths import SharedMemoryPaths
from preswapd.units import format_size

BLOCK = 512  # of st_blocks
MIB = 1 << 20
# A look must not take long; what has more files is no shared memory.
MOST_FILES = 20_000


class Share(NamedTuple):
    """What an instance may take: its limit, beside the maps of its devices."""

    instance: str
    shm_dir: Path
    limit: int


class Sums(NamedTuple):
    """Bytes of one file system."""

    total: int
    free: int
    pools: int  # may take
    others: int  # have
    growth: int  # of files that others have: promised, and not taken yet

    @property
    def wanted(self) -> int:
        return self.pools + self.others + self.growth


def check_sharing(shares: Iterable[Share]) -> list[Finding]:
    by_mount: dict[Path, list[Share]] = {}
    for share in shares:
        if share.shm_dir.is_dir():
            by_mount.setdefault(mount_of(share.shm_dir), []).append(share)
    return [
        judge(mount, [share.instance for share in there], add_up(mount, there))
        for mount, there in by_mount.items()
        if total_bytes(mount)
    ]


def judge(mount: Path, instances: list[str], sums: Sums) -> Finding:
    names = ", ".join(instances)
    text = (
        f"{mount} holds {format_size(sums.total)}: {names} may take {format_size(sums.pools)},"
        f" other programs have {format_size(sums.others)}"
    )
    if sums.growth:
        text += f", and their files may grow by {format_size(sums.growth)}"
    if sums.wanted <= sums.total:
        return Finding(OK, "shared memory", text)
    size = -(-sums.wanted // MIB)
    return Finding(
        # Those files cannot be filled any more, or could not if the pools were to grow.
        FIX if sums.growth > sums.free else NOTE,
        "shared memory",
        f"{text}: a program that finds nothing left for its file dies by SIGBUS",
        f"mount -o remount,size={size}M {mount}; or lower pool_limit, or raise shm-reserve to what"
        " other programs need",
    )


def mount_of(path: Path) -> Path:
    """The highest directory of its file system."""
    place = path.resolve()
    while place.parent != place and place.parent.stat().st_dev == place.stat().st_dev:
        place = place.parent
    return place


def add_up(mount: Path, shares: list[Share]) -> Sums:
    total, free = total_bytes(mount), free_bytes(mount)
    maps = {share: bytes_of(maps_of(share.shm_dir)) for share in shares}
    ours = sum(bytes_of([SharedMemoryPaths(share.shm_dir).arena]) for share in shares)
    return Sums(
        total,
        free,
        pools=sum(share.limit for share in shares) + sum(maps.values()),
        others=max(total - free - ours - sum(maps.values()), 0),
        growth=sum(max(size - held, 0) for size, held in others_files(mount)),
    )


def maps_of(shm_dir: Path) -> list[Path]:
    return list(shm_dir.glob("*.map"))


def bytes_of(paths: Iterable[Path]) -> int:
    return sum(path.lstat().st_blocks * BLOCK for path in paths if is_there(path))


def others_files(mount: Path) -> Iterator[tuple[int, int]]:
    """(size, memory) of each; an arena, of whatever server, takes no more than its pool's limit."""
    seen = 0
    for folder, folders, files in os.walk(mount):
        if SharedMemoryPaths(Path(folder)).arena.name in files:
            folders.clear()
            continue
        for name in files:
            seen += 1
            if seen > MOST_FILES:
                return
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            yield status.st_size, status.st_blocks * BLOCK
