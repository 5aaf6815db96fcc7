# SPDX-License-Identifier: BSD-3-Clause
"""The client that plays requests on a swap disk and checks every byte that it reads: player.c."""

import select
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks import storing
from preswapd.units import PAGE_SIZE

SOURCE = Path(__file__).with_suffix(".c")
BUILD_SECONDS = 60.0
# Of one file of requests; a guest of ten minutes is the longest.
LIMIT_SECONDS = 1800.0
LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Played:
    """One file: seconds, pages, and percentiles (50, 99, 99.9) of a request's microseconds.

    `late`: seconds of it that the disk held the client up.
    """

    seconds: float
    late: float
    requests: int
    read: int
    written: int
    trimmed: int
    read_us: tuple[float, float, float]
    write_us: tuple[float, float, float]


class PlayerError(Exception):
    """A page was not what had been written, or the disk failed."""


def played(line: str) -> Played:
    seconds, late, requests, read, written, trimmed, *times = map(float, line.split())
    r50, r99, r999, w50, w99, w999 = times
    return Played(
        seconds,
        late,
        int(requests),
        int(read),
        int(written),
        int(trimmed),
        (r50, r99, r999),
        (w50, w99, w999),
    )


def build(folder: Path) -> Path:
    """The program, compiled into the folder."""
    program = folder / "player"
    subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)],
        check=True,
        timeout=BUILD_SECONDS,
    )
    return program


class Player:
    """A client of one disk, which knows what it has written there, while the `with` block lasts."""

    def __init__(self, program: Path, socket: Path, export: str, speed: float = 1.0) -> None:
        """`speed`: what the times of requests are divided by."""
        first = storing.START // PAGE_SIZE
        self._files = tempfile.TemporaryDirectory(prefix="preswapd-bench-")
        self._process = subprocess.Popen(
            [str(program), str(socket), export, str(first), str(speed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._files.cleanup()

    def play(self, lines: Iterable[str], meanwhile: Callable[[], None] | None = None) -> Played:
        """Plays these requests to their end; `meanwhile` is called four times a second."""
        self.begin(lines)
        return self.end(meanwhile)

    def begin(self, lines: Iterable[str]) -> None:
        path = Path(self._files.name) / "requests"
        with path.open("w") as file:
            file.writelines(lines)
        assert self._process.stdin
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()

    def end(self, meanwhile: Callable[[], None] | None = None) -> Played:
        assert self._process.stdout
        waited = 0.0
        while not select.select([self._process.stdout], [], [], LOOK_SECONDS)[0]:
            if meanwhile:
                meanwhile()
            waited += LOOK_SECONDS
            if waited > LIMIT_SECONDS:
                raise PlayerError(f"requests were not played in {LIMIT_SECONDS:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr
            raise PlayerError(self._process.stderr.read().strip() or "the player has ended")
        return played(line)
