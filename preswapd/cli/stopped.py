# SPDX-License-Identifier: BSD-3-Clause
"""Instances that do not run while pages of their guests lie in shared memory."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from preswapd.api.last_start import LastStart
from preswapd.host.file_locks import holder
from preswapd.paths import InstancePaths, RuntimePaths, SharedMemoryPaths
from preswapd.units import format_pages

# The state byte of a page that is in tmem; docs/concurrency.md has all of them.
TMEM = 0xF0
PIECE = 1 << 20
MAP = ".map"


class Stopped(NamedTuple):
    """`pages`: in memory, of each of its devices."""

    name: str  # its runtime directory's, as --instance takes it
    runtime_dir: Path
    shm_dir: Path
    pages: Mapping[str, int]
    last_start: LastStart | None

    @property
    def text(self) -> str:
        held = format_pages(sum(self.pages.values()))
        return f"does not run, and {held} of its guests lie in {self.shm_dir}"

    @property
    def sentence(self) -> str:
        return f"instance {self.name} {self.text}: `preswapctl doctor` says how to start it"


def stopped(runtime_dirs: Iterable[Path], shm_dirs: Mapping[str, Path]) -> Iterator[Stopped]:
    """Of the directories where nobody answers, those whose pages are in memory.

    `shm_dirs`: by instance, where its pages lie unless its last start says something else.
    """
    for runtime_dir in runtime_dirs:
        last_start = LastStart.read(RuntimePaths(runtime_dir).last_start)
        shm_dir = Path(last_start.shm_dir) if last_start else shm_dirs.get(runtime_dir.name)
        if shm_dir is None or not is_its_own(shm_dir, runtime_dir) or is_held(shm_dir):
            continue
        pages = dict(pages_in_tmem(shm_dir))
        if any(pages.values()):
            yield Stopped(runtime_dir.name, runtime_dir, shm_dir, pages, last_start)


def is_its_own(shm_dir: Path, runtime_dir: Path) -> bool:
    """Anybody may take any name in /dev/shm: the server's user and this one are believed."""
    owners = {os.geteuid()}
    try:
        with suppress(FileNotFoundError):
            owners.add(runtime_dir.stat().st_uid)
        status = shm_dir.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in owners


def is_held(shm_dir: Path) -> bool:
    """By a server that answers elsewhere, or is about to start or to end."""
    lock, *_ = InstancePaths(shm_dir, shm_dir, shm_dir).locks
    return holder(lock) is not None


def pages_in_tmem(shm_dir: Path) -> Iterator[tuple[str, int]]:
    """Of each device, as its map says: wrong by what was under way when the server was killed."""
    try:
        names = sorted(os.listdir(shm_dir))
    except OSError:
        return
    for name in names:
        if name.endswith(MAP):
            device = name.removesuffix(MAP)
            yield device, count_in(SharedMemoryPaths(shm_dir).map(device))


def count_in(path: Path) -> int:
    """Nothing of what is no plain file: in /dev/shm others may lay what they like."""
    count = 0
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                while piece := file.read(PIECE):
                    count += piece.count(TMEM)
    return count
