# SPDX-License-Identifier: BSD-3-Clause
"""A kill before each change that an operation makes, and before each that its recovery makes."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from preswapd.preswap.files.identity import identity_of, write_token
from preswapd.preswap.files.sidecar import Sidecar
from tests.preswap.running import data_of
from tests.stepping import Operation, Stepper

OPEN: Operation = ["open"]
# Of the states that a kill leaves, so many are recovered once for one that is killed again at
# each change of its recovery.
EVERY = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 5


class File(NamedTuple):
    """A file as a kill leaves it.  `inode` and `ctime` of a disk file are what its sidecar may know
    it by."""

    name: str
    size: int
    data: tuple[tuple[int, bytes], ...]
    token: int | None
    inode: int
    ctime: int


Content = tuple[File, ...]


def content_of(base: Path) -> Content:
    return tuple(
        file_of(base, path)
        for folder in ("shm", "state")
        for path in sorted((base / folder).iterdir())
    )


def file_of(base: Path, path: Path) -> File:
    size, token, inode, ctime = path.stat().st_size, None, 0, 0
    if path.suffix == ".img":
        inode, ctime, token = identity_of(path, size)
    return File(str(path.relative_to(base)), size, tuple(data_of(path)), token, inode, ctime)


def write_copy(base: Path, content: Content) -> None:
    """The copy of a disk file is what the copied sidecar knows."""
    shutil.rmtree(base, ignore_errors=True)
    for folder in ("shm", "state"):
        (base / folder).mkdir(parents=True)
    for file in content:
        with (base / file.name).open("wb") as copy:
            copy.truncate(file.size)
            if file.name.endswith(".map"):
                os.posix_fallocate(copy.fileno(), 0, file.size)
            for start, piece in file.data:
                os.pwrite(copy.fileno(), piece, start)
            if file.token:
                write_token(copy.fileno(), file.size, file.token)
    for file in content:
        if file.name.endswith(".img"):
            tell_of_copy(base / file.name, file)


def tell_of_copy(disk_file: Path, file: File) -> None:
    path = disk_file.with_suffix(".json")
    if path.exists():
        sidecar, found = Sidecar.read(path), identity_of(disk_file, file.size)
        if sidecar.inode == file.inode:
            sidecar = replace(sidecar, inode=found.inode)
        if sidecar.ctime == file.ctime:
            sidecar = replace(sidecar, ctime=found.ctime)
        sidecar.write(path)


class Killer:
    """Copies the files as they are, recovers the copy, and lets `check` look at each state."""

    def __init__(self, recoverer: Stepper, base: Path, check: Callable[[Path], None]) -> None:
        self.recoverer = recoverer
        self.base = base
        self.check = check
        self.seen: set[int] = set()
        self.kills = self.states = 0

    def is_new(self, content: Content, what: object) -> bool:
        state = hash((content, what))
        fresh = state not in self.seen
        self.seen.add(state)
        return fresh

    def kill_now(self, allowed: object, recovery: Operation = OPEN) -> None:
        """A kill now, and one at each change of the recovery; `allowed` tells states apart."""
        content = content_of(self.base / "live")
        if not self.is_new(content, ("killed", allowed)):
            return
        self.kills += 1
        if self.kills % EVERY:
            self.check_copy(content, allowed)
            return
        killed = self.base / "killed"
        write_copy(killed, content)
        for _ in self.recoverer.run(killed, [], [recovery]):
            self.check_copy(content_of(killed), allowed)

    def check_copy(self, content: Content, allowed: object) -> None:
        if self.is_new(content, ("again", allowed)):
            self.states += 1
            write_copy(self.base / "again", content)
            self.check(self.base / "again")
