# SPDX-License-Identifier: BSD-3-Clause
"""Section `recovery`: from kill to serving, by what is stored."""

import statistics
import time
from pathlib import Path

from benchmarks.load import INCOMPRESSIBLE, run
from benchmarks.sections import Figures, Progress
from benchmarks.servers import Server, end, folders, prepare, preswapd, serving_from, start
from benchmarks.text import columns
from preswapd.units import PAGE_SIZE

GIB = 1 << 30
KILLS, QUICK_KILLS = 5, 2
STORED, QUICK_STORED = GIB, 64 << 20


def measure(progress: Progress, quick: bool) -> Figures:
    """Pages that do not compress: for their number they make the largest pool to read through."""
    server = preswapd("lz4", pool="2G", size=str(QUICK_STORED if quick else STORED))
    with folders() as (folder, disk):
        life = Life(server, folder, disk)
        try:
            progress("starting with nothing stored")
            empty = [life.killed_and_started() for _ in range(QUICK_KILLS if quick else KILLS)]
            progress("storing pages to recover")
            run(life.serving, INCOMPRESSIBLE, None, server.size)
            pages = life.serving.tmem()["stored_pages"]
            seconds = []
            for number in range(len(empty)):
                progress(f"killing and starting: {number + 1} of {len(empty)}")
                seconds.append(life.killed_and_started())
            if life.serving.tmem()["stored_pages"] != pages:
                raise RuntimeError("not all pages were recovered")
        finally:
            life.end()
    return figures(pages, empty, seconds)


class Life:
    """A server that is killed again and again."""

    def __init__(self, server: Server, folder: Path, disk: Path) -> None:
        self.server = server
        self.folder = folder
        self.disk = disk
        prepare(server, folder, disk)
        self.start()

    def start(self) -> None:
        self.child = start(self.server, self.folder, self.disk)
        self.serving = serving_from(self.server, self.folder, self.child)

    def killed_and_started(self) -> float:
        """Seconds from the new start to the first answer; the socket accepts before that."""
        self.child.kill()
        (self.folder / self.server.socket).unlink()
        begun = time.monotonic()
        self.start()
        self.serving.ask()
        return time.monotonic() - begun

    def end(self) -> None:
        end(self.server, self.folder, self.child)


def figures(pages: int, empty: list[float], seconds: list[float]) -> Figures:
    """Bytes as the guest counts them.  A GiB costs what a start takes longer than an empty one."""
    stored = pages * PAGE_SIZE
    longer = statistics.median(seconds) - statistics.median(empty)
    return {
        "stored_bytes": stored,
        "empty_seconds": empty,
        "seconds": seconds,
        "seconds_per_gib": longer * GIB / stored,
    }


def table(figures: Figures) -> str:
    stored = figures["stored_bytes"] / GIB
    named = {
        "nothing stored": figures["empty_seconds"],
        f"{stored:.2f} GiB stored": figures["seconds"],
    }
    rows = [
        [name, *(f"{value:.2f}" for value in (min(seen), statistics.median(seen), max(seen)))]
        for name, seen in named.items()
    ]
    kills = len(figures["seconds"])
    title = f"From a start after kill -9 to the first answer, seconds, {kills} kills each"
    shown = columns(title, ("", "least", "median", "most"), rows)
    return f"{shown}\n  each GiB stored adds {figures['seconds_per_gib']:.2f} s"
