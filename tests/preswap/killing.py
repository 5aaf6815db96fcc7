# SPDX-License-Identifier: BSD-3-Clause
"""A kill before each change that an operation makes, and before each that its recovery makes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.preswap.running import data_of
from tests.stepping import Operation, Stepper

Content = tuple[tuple[str, int, tuple[tuple[int, bytes], ...]], ...]
OPEN: Operation = ["open"]
# Of the states that a kill leaves, so many are recovered once for one that is killed again at
# each change of its recovery.
EVERY = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 5


def content_of(base: Path) -> Content:
    """Names, sizes and data of all files."""
    return tuple(
        (str(path.relative_to(base)), path.stat().st_size, tuple(data_of(path)))
        for folder in ("shm", "state")
        for path in sorted((base / folder).iterdir())
    )


def write_copy(base: Path, content: Content) -> None:
    shutil.rmtree(base, ignore_errors=True)
    for folder in ("shm", "state"):
        (base / folder).mkdir(parents=True)
    for name, size, data in content:
        with (base / name).open("wb") as file:
            file.truncate(size)
            if name.endswith(".map"):
                os.posix_fallocate(file.fileno(), 0, size)
            for start, piece in data:
                os.pwrite(file.fileno(), piece, start)


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
