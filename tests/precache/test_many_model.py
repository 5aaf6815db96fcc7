# SPDX-License-Identifier: BSD-3-Clause
"""Random histories of several images in one pool, beside swap pages: each reads as its file does.

Whoever changes which file, whatever is evicted, limited and admitted, and whichever pools get whose
numbers; and after a kill nothing is cached, and every swap page is there.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from preswapd.precache.image._image import Connection
from preswapd.precache.watched import Watched
from preswapd.tmem import PERSISTENT, Host
from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.running import content, read, watched
from tests.tmem.pages import make_page

PAGES = 120
SIZE = PAGES * PAGE + 512
LIMITS = [0, 100_000, 300_000, 600_000, 4_000_000]
# Two are of one file, with one limit for both, and two of one file with limits of their own.
SAID: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a", {}),
    ("a", {}),
    ("b", {"cache": 50_000}),
    ("b", {"cache": 150_000, "admit": "second"}),
    ("c", {"admit": "second"}),
    ("w", {"writable": True, "cache": 100_000, "admit": "second"}),
    ("v", {"writable": True}),
)
FILES = sorted({file for file, _ in SAID})
WRITABLE = [number for number, (_, said) in enumerate(SAID) if said.get("writable")]
WHICH = st.integers(0, len(SAID) - 1)
FIRST = st.integers(0, SIZE - 1)
COUNTS = st.one_of(st.sampled_from([1, PAGE, 16 * PAGE, SIZE]), st.integers(1, SIZE))


class ImagesAgainstFiles(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="preswapd-test-"))
        self.shm = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
        self.right = {file: bytearray(content(SIZE, n + 1)) for n, file in enumerate(FILES)}
        for file, data in self.right.items():
            (self.base / file).write_bytes(data)
        self.seed = 100
        self.clock = [0.0]
        self.stored: dict[int, bytes] = {}
        self.host = Host(self.shm / "arena", LIMITS[-1], create=True)
        self.swap = self.host.new_pool(flags=PERSISTENT)
        self.serve()

    def serve(self) -> None:
        self.images: list[Watched] = []
        self.clients: list[Connection] = []
        for file, said in SAID:
            image = watched(self.host, self.base / file, "lz4", [], self.clock, **said)
            self.images.append(image)
            self.clients.append(image.connect())
        self.settle()

    def teardown(self) -> None:
        try:
            for number in range(len(SAID)):
                self.read(number, 0, SIZE)
            self.every_swap_page_is_there()
            for image in self.images:
                image.close()
        finally:
            self.host.close()
            shutil.rmtree(self.base)
            shutil.rmtree(self.shm)

    @rule(which=WHICH, offset=FIRST, count=COUNTS)
    def read(self, which: int, offset: int, count: int) -> None:
        count = min(count, SIZE - offset)
        right = self.right[SAID[which][0]][offset : offset + count]
        assert read(self.clients[which], offset, count) == right

    @rule(which=WHICH, first=st.integers(0, PAGES - 10))
    def read_often(self, which: int, first: int) -> None:
        for _ in range(3):
            self.read(which, first * PAGE, 10 * PAGE)

    @rule(which=st.sampled_from(WRITABLE), offset=FIRST, count=COUNTS)
    def write(self, which: int, offset: int, count: int) -> None:
        count = min(count, SIZE - offset)
        self.seed += 1
        piece = content(count, self.seed)
        self.right[SAID[which][0]][offset : offset + count] = piece
        self.clients[which].pwrite(piece, offset, 0)

    @rule(
        which=st.sampled_from(WRITABLE), first=st.integers(0, PAGES - 1), pages=st.integers(1, 99)
    )
    def trim(self, which: int, first: int, pages: int) -> None:
        count = min(pages, PAGES - first) * PAGE
        self.right[SAID[which][0]][first * PAGE : first * PAGE + count] = bytes(count)
        self.clients[which].trim(count, first * PAGE)

    @rule(file=st.sampled_from(["a", "b", "c"]), offset=FIRST, count=st.integers(1, 3 * PAGE))
    def somebody_writes(self, file: str, offset: int, count: int) -> None:
        self.seed += 1
        piece = content(min(count, SIZE - offset), self.seed)
        self.right[file][offset : offset + len(piece)] = piece
        path = self.base / file
        before = os.stat(path).st_ctime_ns
        with path.open("r+b") as opened:
            opened.seek(offset)
            opened.write(piece)
        while os.stat(path).st_ctime_ns == before:  # within one tick of the clock
            os.utime(path)

    @rule(which=WHICH, frozen=st.booleans())
    def look(self, which: int, frozen: bool) -> None:
        self.images[which].look(frozen)

    @rule()
    def settle(self) -> None:
        for _ in range(2):
            for image in self.images:
                image.look()
            self.clock[0] += 10
        assert all(image.stats()["cached"] for image in self.images)

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: int) -> None:
        self.host.limit = limit
        self.host.maintain(all=True)

    @rule()
    def evict_all(self) -> None:
        self.host.evict_all()

    @rule(first=st.integers(0, 100), count=st.integers(1, 90))
    def swap_out(self, first: int, count: int) -> None:
        for index in range(first, first + count):
            self.seed += 1
            page = make_page("noise", self.seed)
            if self.host.put_page(self.swap, 0, index, page):
                self.stored[index] = page
            else:
                self.stored.pop(index, None)

    @rule()
    def swap_in(self) -> None:
        self.every_swap_page_is_there()
        self.host.flush_object(self.swap, 0)
        self.stored.clear()

    @rule(on=st.booleans())
    def stage(self, on: bool) -> None:
        self.host.set_staging(on)

    @rule()
    def compress(self) -> None:
        self.host.settle()

    @rule()
    def killed(self) -> None:
        """Nobody has taken the images' pools away: the next process finds them."""
        for image in self.images:
            image.image.close()
        self.host.close()
        self.host = Host(self.shm / "arena", LIMITS[-1], create=False)
        self.host.recover()
        assert self.host.stats()["ephemeral_pages"] == 0
        assert self.host.stats()["stored_pages"] == len(self.stored)
        self.every_swap_page_is_there()
        self.serve()

    def every_swap_page_is_there(self) -> None:
        into = bytearray(PAGE)
        for index, page in self.stored.items():
            assert self.host.get_page(self.swap, 0, index, into)
            assert bytes(into) == page

    @invariant()
    def limits_hold(self) -> None:
        for (_, said), image in zip(SAID, self.images, strict=True):
            assert image.stats()["cached_bytes"] <= said.get("cache", LIMITS[-1])

    @invariant()
    def written_files_are_right(self) -> None:
        for number in WRITABLE:
            file = SAID[number][0]
            assert (self.base / file).read_bytes() == self.right[file]


TestImagesAgainstFiles = ImagesAgainstFiles.TestCase
