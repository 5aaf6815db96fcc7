# SPDX-License-Identifier: BSD-3-Clause
"""Random histories of a writable image: it and its file are what a plain disk would be.

Whatever is evicted, rejected, frozen; whoever of its connections writes; where the file fails in
the middle of a request; and when the server is gone and another one serves the file.
"""

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from preswapd.block._export import FLAG_FAST_ZERO, FLAG_FUA, FLAG_MAY_TRIM
from preswapd.precache.image._image import Connection
from preswapd.tmem import PERSISTENT
from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.running import check_either, content, read, shown
from tests.tmem.pages import make_page

SIZE = 300 * PAGE + 1536
LIMITS = [0, 100_000, 300_000, 600_000, 4_000_000]
OFFSETS = st.one_of(
    st.integers(0, SIZE - 1), st.integers(0, SIZE // PAGE).map(lambda page: page * PAGE)
)
COUNTS = st.one_of(
    st.sampled_from([0, 1, 512, PAGE, 2 * PAGE, 64 * PAGE, 257 * PAGE]), st.integers(1, SIZE)
)
FUA = st.sampled_from([0, 0, FLAG_FUA])
ZERO_FLAGS = st.sampled_from([0, FLAG_MAY_TRIM, FLAG_FAST_ZERO, FLAG_FAST_ZERO | FLAG_MAY_TRIM])


@contextmanager
def file_fails_behind(size: int) -> Iterator[None]:
    """No file can be written behind that: EFBIG, or a part of what was to be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class DiskAgainstBytes(RuleBasedStateMachine):
    said: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="preswapd-test-"))
        self.path = self.base / "disk.raw"
        self.right = bytearray(content(SIZE))
        self.path.write_bytes(self.right)
        self.seed = 1
        self.serve()

    def serve(self) -> None:
        self.held = ExitStack()
        self.disk = self.held.enter_context(
            shown(self.path, LIMITS[-1], writable=True, **self.said)
        )
        self.opened = 0
        self.changer = 0
        self.numbers: dict[int, int] = {}  # of who's connection, in the order in which they open
        self.clients: dict[int, Connection] = {}
        for who in range(2):
            self.connect(who)
        self.swap = self.disk.host.new_pool(flags=PERSISTENT)

    def teardown(self) -> None:
        self.held.close()
        shutil.rmtree(self.base)

    def connect(self, who: int) -> None:
        self.opened += 1
        self.clients[who], self.numbers[who] = self.disk.connect(), self.opened

    def change(self, who: int, make: Callable[[Connection], None]) -> None:
        """By a client that connects again where a newer one has changed something before."""
        if self.numbers[who] < self.changer:
            with pytest.raises(ConnectionAbortedError):
                make(self.clients[who])
            self.clients[who].close()
            self.connect(who)
        self.changer = self.numbers[who]
        make(self.clients[who])

    def new(self, count: int) -> bytes:
        self.seed += 1
        return content(count, self.seed)

    @rule(who=st.integers(0, 1), offset=OFFSETS, count=COUNTS)
    def read(self, who: int, offset: int, count: int) -> None:
        count = min(count, SIZE - offset)
        assert read(self.clients[who], offset, count) == self.right[offset : offset + count]

    @rule(who=st.integers(0, 1), offset=OFFSETS, count=COUNTS, flags=FUA)
    def write(self, who: int, offset: int, count: int, flags: int) -> None:
        piece = self.new(min(count, SIZE - offset))
        self.change(who, lambda client: client.pwrite(piece, offset, flags))
        self.right[offset : offset + len(piece)] = piece

    @rule(offset=OFFSETS, count=COUNTS, behind=st.integers(0, SIZE))
    def write_fails(self, offset: int, count: int, behind: int) -> None:
        """Each byte is old or new then, and the file says which."""
        piece = self.new(min(count, SIZE - offset))
        with file_fails_behind(behind):
            try:
                self.change(0, lambda client: client.pwrite(piece, offset))
                failed = False
            except OSError:
                failed = True
        last = min(SIZE, -(-(offset + len(piece)) // PAGE) * PAGE)  # it writes whole pages
        assert failed == (bool(piece) and last > behind)
        found = self.path.read_bytes()
        check_either(found, bytes(self.right), piece, offset)
        self.right = bytearray(found)

    @rule(who=st.integers(0, 1), offset=OFFSETS, count=COUNTS, flags=FUA)
    def trim(self, who: int, offset: int, count: int, flags: int) -> None:
        count = min(count, SIZE - offset)
        self.change(who, lambda client: client.trim(count, offset, flags))
        first = min(-(-offset // PAGE) * PAGE, SIZE)
        end = offset + count
        last = max(first, end if end == SIZE else end // PAGE * PAGE)
        self.right[first:last] = bytes(last - first)

    @rule(who=st.integers(0, 1), offset=OFFSETS, count=COUNTS, flags=ZERO_FLAGS, fua=FUA)
    def zero(self, who: int, offset: int, count: int, flags: int, fua: int) -> None:
        count = min(count, SIZE - offset)
        try:
            self.change(who, lambda client: client.zero(count, offset, flags | fua))
        except OSError:
            assert flags & FLAG_FAST_ZERO
            assert offset % PAGE or ((offset + count) % PAGE and offset + count < SIZE)
        else:
            self.right[offset : offset + count] = bytes(count)

    @rule()
    def flush(self) -> None:
        self.clients[0].flush()

    @rule(who=st.integers(0, 1))
    def reconnect(self, who: int) -> None:
        self.clients[who].close()
        self.connect(who)

    @rule()
    def killed(self) -> None:
        """What was cached is gone with its host, and the next server has the file alone."""
        self.held.close()
        self.serve()

    @rule(frozen=st.booleans())
    def look(self, frozen: bool) -> None:
        self.disk.watched.look(frozen)

    @rule()
    def touch(self) -> None:
        os.utime(self.path)

    @rule(behind=st.integers(1, 3 * PAGE))
    def somebody_makes_it_longer_and_shorter(self, behind: int) -> None:
        """It is cached anew, and nothing of its own bytes has changed."""
        os.truncate(self.path, SIZE + behind)
        self.disk.watched.look()
        self.read(0, 0, SIZE)
        os.truncate(self.path, SIZE)

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: int) -> None:
        self.disk.host.limit = limit
        self.disk.host.maintain(all=True)

    @rule()
    def evict_all(self) -> None:
        self.disk.host.evict_all()

    @rule(first=st.integers(0, 100), count=st.integers(1, 60))
    def swap_out(self, first: int, count: int) -> None:
        for index in range(first, first + count):
            self.disk.host.put_page(self.swap, 0, index, make_page("noise", index))

    @rule()
    def swap_in(self) -> None:
        self.disk.host.flush_object(self.swap, 0)

    @rule(on=st.booleans())
    def stage(self, on: bool) -> None:
        self.disk.host.set_staging(on)

    @rule()
    def compress(self) -> None:
        self.disk.host.settle()

    @invariant()
    def file_is_right(self) -> None:
        assert self.path.read_bytes() == self.right

    @invariant()
    def figures_add_up(self) -> None:
        found, tmem = self.disk.stats, self.disk.host.stats()
        assert found["cached_pages"] == tmem["ephemeral_pages"]
        assert found["cached_bytes"] == tmem["ephemeral_bytes"]
        assert found["cached_bytes"] <= self.said.get("cache", LIMITS[-1])


class LimitedDisk(DiskAgainstBytes):
    said: ClassVar[Mapping[str, Any]] = {"cache": 120_000}


class DiskCachedAtSecondRead(DiskAgainstBytes):
    said: ClassVar[Mapping[str, Any]] = {"cache": 400_000, "admit": "second"}


TestDiskAgainstBytes = DiskAgainstBytes.TestCase
TestLimitedDisk = LimitedDisk.TestCase
TestDiskCachedAtSecondRead = DiskCachedAtSecondRead.TestCase
