# SPDX-License-Identifier: BSD-3-Clause
"""Readers and writers of one page at once: who was told of a version never sees an older one."""

import random
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from preswapd.block._export import FLAG_MAY_TRIM
from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.running import MIB, Shown, read, shown
from tests.running import IS_SANITIZED

SECTOR = 512
SECTORS = PAGE // SECTOR
PAGES = 3
VERSIONS = 150 if IS_SANITIZED else 1500
FAST = 4  # what is rejected, cached or evicted, in turns


class Versions:
    """Of each place that has one writer: begun, and told to be done."""

    def __init__(self, disk: Shown, places: int) -> None:
        self.disk = disk
        self.begun = [0] * places
        self.done = [0] * places
        self.ended = threading.Event()
        self.wrong: list[str] = []

    def run(
        self, writers: Sequence[Callable[[], None]], others: Sequence[Callable[[], None]]
    ) -> None:
        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    work()
                except Exception as error:
                    self.wrong.append(repr(error))
                    self.ended.set()

            return run

        writing = [threading.Thread(target=guarded(one)) for one in writers]
        beside = [threading.Thread(target=guarded(one)) for one in others]
        for thread in (*writing, *beside):
            thread.start()
        for thread in writing:
            thread.join()
        self.ended.set()
        for thread in beside:
            thread.join()
        assert not self.wrong

    def evict(self) -> None:
        """The pool has room, has none, loses what it has."""
        rng, host = random.Random(9), self.disk.host
        while not self.ended.is_set():
            what = rng.randrange(FAST)
            if what == 0:
                host.evict_all()
            elif what == 1:
                host.limit = 0
            elif what == 2:
                host.limit = 4 * MIB
            else:
                host.settle()

    def saw(self, place: int, version: int, least: int) -> None:
        if not least <= version <= self.begun[place]:
            text = f"place {place}: {version}, {least} was told, {self.begun[place]} begun"
            self.wrong.append(text)
            self.ended.set()


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    path = tmp_path / "stamps.raw"
    path.write_bytes(bytes(PAGES * PAGE))
    return path


def stamp(version: int, count: int) -> bytes:
    return version.to_bytes(8, "little") * (count // 8)


@pytest.mark.parametrize("staging", [False, True])
def test_whole_pages(stamps: Path, staging: bool) -> None:
    """One thread writes each page: all of it has one version, and readers see none go back."""
    with shown(stamps, 4 * MIB, writable=True) as disk:
        disk.host.set_staging(staging)
        it = Versions(disk, PAGES)

        client = disk.connect()

        def write(page: int) -> None:
            for version in range(1, VERSIONS):
                if it.ended.is_set():
                    return
                it.begun[page] = version
                client.pwrite(stamp(version, PAGE), page * PAGE)
                it.done[page] = version

        def look() -> None:
            reader = disk.connect()
            seen = [0] * PAGES
            while not it.ended.is_set():
                page = random.randrange(PAGES)
                least = max(seen[page], it.done[page])
                got = read(reader, page * PAGE, PAGE)
                version = int.from_bytes(got[:8], "little")
                if got != stamp(version, PAGE):
                    it.wrong.append(f"page {page} is of several versions")
                it.saw(page, version, least)
                seen[page] = version

        writers = [partial(write, page) for page in range(PAGES)]
        it.run(writers, [look, look, look, it.evict])


def test_sectors_of_one_page(stamps: Path) -> None:
    """Each has a writer of its own: none undoes another's, whatever its page is read for."""
    with shown(stamps, 4 * MIB, writable=True) as disk:
        it = Versions(disk, SECTORS)

        client = disk.connect()

        def write(sector: int) -> None:
            for version in range(1, VERSIONS):
                if it.ended.is_set():
                    return
                it.begun[sector] = version
                client.pwrite(stamp(version, SECTOR), PAGE + sector * SECTOR)
                it.done[sector] = version
                got = read(client, PAGE + sector * SECTOR, SECTOR)
                if got != stamp(version, SECTOR):
                    it.wrong.append(f"sector {sector} is not {version}, which was just written")

        def look() -> None:
            reader = disk.connect()
            seen = [0] * SECTORS
            while not it.ended.is_set():
                least = [max(two) for two in zip(seen, it.done, strict=True)]
                got = read(reader, PAGE, PAGE)
                seen = [int.from_bytes(got[at : at + 8], "little") for at in range(0, PAGE, SECTOR)]
                for sector in range(SECTORS):
                    it.saw(sector, seen[sector], least[sector])

        writers = [partial(write, sector) for sector in range(4)]
        it.run(writers, [look, look, it.evict])


def test_writes_trims_and_zeroes_in_turns(stamps: Path) -> None:
    """Odd versions are a stamp, even ones zeros."""
    with shown(stamps, 4 * MIB, writable=True) as disk:
        it = Versions(disk, PAGES)

        client = disk.connect()

        def change(page: int) -> None:
            ways: list[Callable[[], None]] = [
                lambda: client.trim(PAGE, page * PAGE),
                lambda: client.zero(PAGE, page * PAGE),
                lambda: client.zero(PAGE, page * PAGE, FLAG_MAY_TRIM),
            ]
            for version in range(1, VERSIONS // 2):
                if it.ended.is_set():
                    return
                it.begun[page] = version
                if version % 2:
                    client.pwrite(stamp(version, PAGE), page * PAGE)
                else:
                    ways[version // 2 % 3]()
                it.done[page] = version
                got = read(client, page * PAGE, PAGE)
                if got != (stamp(version, PAGE) if version % 2 else bytes(PAGE)):
                    it.wrong.append(f"page {page} is not version {version}")

        def look() -> None:
            reader = disk.connect()
            while not it.ended.is_set():
                page = random.randrange(PAGES)
                least = it.done[page]
                version = int.from_bytes(read(reader, page * PAGE, 8), "little")
                if version:
                    it.saw(page, version, least)
                elif it.begun[page] == least and least % 2:
                    it.wrong.append(f"page {page} is zeros, and not {least}")

        writers = [partial(change, page) for page in range(PAGES)]
        it.run(writers, [look, look, it.evict])
