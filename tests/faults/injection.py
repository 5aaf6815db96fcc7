# SPDX-License-Identifier: BSD-3-Clause
"""Faults of system calls in a running server: they fail, or wait, while a test says so."""

import mmap
import struct
from enum import IntFlag
from pathlib import Path
from typing import Self

from preswapd.units import PAGE_SIZE as PAGE
from tests.running import wait_until

EVERYWHERE = (0, (1 << 63) - 1)
# struct rule of injected.c.
CALLS, ERROR, HOLD, CAUGHT = 0, 4, 8, 12
RANGE_AND_PATH = struct.Struct("<QQ96s")
RULE_BYTES = 16 + RANGE_AND_PATH.size
WORD = struct.Struct("<i")


class Call(IntFlag):
    """What may be caught; fsync and fdatasync are both SYNC, SEEK is that for data.

    LOCK_AGAIN, of no file: a thread locks a mutex again under which it just told others of
    something.
    """

    READ = 1
    WRITE = 2
    SYNC = 4
    PUNCH = 8
    RENAME = 16
    UNLINK = 32
    SEEK = 64
    LOCK_AGAIN = 128


class Injector:
    """One rule at a time, for all servers that are started with `env`."""

    def __init__(self, library: Path, path: Path) -> None:
        path.write_bytes(bytes(RULE_BYTES))
        self.env = {"LD_PRELOAD": str(library), "PRESWAPD_INJECT": str(path)}
        with path.open("r+b") as file:
            self.rule = mmap.mmap(file.fileno(), RULE_BYTES)

    def fail(
        self, calls: Call, path: str, error: int, pages: tuple[int, int] | None = None
    ) -> None:
        """Such calls on files whose path ends so, within these pages, fail from now on."""
        self.set(calls, path, pages, error=error)

    def hold(self, calls: Call, path: str, pages: tuple[int, int] | None = None) -> None:
        """Such calls wait from now on, until end()."""
        self.set(calls, path, pages, hold=1)

    def set(
        self, calls: Call, path: str, pages: tuple[int, int] | None, error: int = 0, hold: int = 0
    ) -> None:
        self.end()
        first, end = (pages[0] * PAGE, pages[1] * PAGE) if pages else EVERYWHERE
        RANGE_AND_PATH.pack_into(self.rule, 16, first, end, path.encode())
        self.put(ERROR, error)
        self.put(HOLD, hold)
        self.put(CAUGHT, 0)
        self.put(CALLS, calls)

    def catch_no_more(self) -> None:
        """Those that wait do so until end()."""
        self.put(CALLS, 0)

    def end(self) -> None:
        """No call is caught any more, and those that wait go on."""
        self.catch_no_more()
        self.put(HOLD, 0)

    @property
    def caught(self) -> int:
        return int(WORD.unpack_from(self.rule, CAUGHT)[0])

    def wait(self, calls: int = 1) -> None:
        """Until so many were caught."""
        wait_until(lambda: self.caught >= calls, "such a call to be made")

    def put(self, at: int, value: int) -> None:
        WORD.pack_into(self.rule, at, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self.rule.close()
