# SPDX-License-Identifier: BSD-3-Clause
"""Random histories: an image reads as its file does, whoever changes it and whatever is evicted."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from preswapd.tmem import PERSISTENT
from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.running import content, read, shown
from tests.tmem.pages import make_page

SIZE = 200 * PAGE + 1536
LIMITS = [0, 100_000, 300_000, 600_000, 4_000_000]
OFFSETS = st.one_of(
    st.integers(0, SIZE - 1), st.integers(0, SIZE // PAGE).map(lambda page: page * PAGE)
)
COUNTS = st.one_of(st.sampled_from([1, 512, PAGE, 64 * PAGE, 65 * PAGE]), st.integers(1, SIZE))


class ImageAgainstFile(RuleBasedStateMachine):
    said: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="preswapd-test-"))
        self.path = self.base / "base.raw"
        self.path.write_bytes(content(SIZE))
        self.held = ExitStack()
        self.image = self.held.enter_context(shown(self.path, LIMITS[-1], **self.said))
        self.clients = [self.image.connect() for _ in range(2)]
        self.swap = self.image.host.new_pool(flags=PERSISTENT)
        self.stored: dict[int, bytes] = {}

    def teardown(self) -> None:
        self.every_swap_page_is_there()
        self.held.close()
        shutil.rmtree(self.base)

    def right(self, offset: int, count: int) -> bytes | None:
        """None: the file has been cut off before that."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            found = file.read(count)
        return found if len(found) == count else None

    @rule(who=st.integers(0, 1), offset=OFFSETS, count=COUNTS)
    def read(self, who: int, offset: int, count: int) -> None:
        count = min(count, SIZE - offset)
        right = self.right(offset, count)
        try:
            assert read(self.clients[who], offset, count) == right
        except OSError:
            assert right is None

    @rule(offset=OFFSETS, data=st.binary(min_size=1, max_size=3 * PAGE))
    def somebody_writes(self, offset: int, data: bytes) -> None:
        self.image.change(data[: SIZE - offset], offset)

    @rule(size=st.sampled_from([0, 50 * PAGE, 50 * PAGE + 512, SIZE, SIZE + PAGE]))
    def somebody_truncates(self, size: int) -> None:
        before = os.stat(self.path).st_ctime_ns
        os.truncate(self.path, size)
        while os.stat(self.path).st_ctime_ns == before:
            os.utime(self.path)

    @rule()
    def touch(self) -> None:
        os.utime(self.path)

    @rule(frozen=st.booleans())
    def look(self, frozen: bool) -> None:
        self.image.watched.look(frozen)

    @rule()
    def settle(self) -> None:
        self.image.settle()
        if os.stat(self.path).st_size >= SIZE:
            assert self.image.stats["cached"]

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: int) -> None:
        self.image.host.limit = limit
        self.image.host.maintain(all=True)

    @rule(spare=st.sampled_from([0, 100_000]))
    def make_spare(self, spare: int) -> None:
        self.image.host.set_spare(spare)
        self.image.host.make_spare()

    @rule()
    def evict_all(self) -> None:
        self.image.host.evict_all()

    @rule(first=st.integers(0, 100), count=st.integers(1, 60))
    def swap_out(self, first: int, count: int) -> None:
        for index in range(first, first + count):
            page = make_page("noise", index)
            if self.image.host.put_page(self.swap, 0, index, page):
                self.stored[index] = page
            else:
                assert not self.image.stats["cached_pages"] or self.is_over_limit()
                self.stored.pop(index, None)

    @rule()
    def swap_in(self) -> None:
        self.image.host.flush_object(self.swap, 0)
        self.stored.clear()

    @rule(on=st.booleans())
    def stage(self, on: bool) -> None:
        self.image.host.set_staging(on)

    @rule()
    def compress(self) -> None:
        self.image.host.settle()

    def is_over_limit(self) -> bool:
        stats = self.image.host.stats()
        return stats["mem_used_total"] > stats["mem_limit"]

    def every_swap_page_is_there(self) -> None:
        into = bytearray(PAGE)
        for index, page in self.stored.items():
            assert self.image.host.get_page(self.swap, 0, index, into)
            assert bytes(into) == page

    @invariant()
    def figures_add_up(self) -> None:
        found, tmem = self.image.stats, self.image.host.stats()
        assert found["hits"] + found["misses"] <= found["reads"]
        assert found["cached_pages"] == tmem["ephemeral_pages"]
        assert found["cached_bytes"] == tmem["ephemeral_bytes"]
        assert found["evicted"] == tmem["evicted_pages"]
        assert found["disk_writes"] == 0
        assert found["cached_bytes"] <= self.said.get("cache", LIMITS[-1])
        assert found["evicted_by_itself"] <= found["evicted"]


class LimitedImage(ImageAgainstFile):
    said: ClassVar[Mapping[str, Any]] = {"cache": 120_000}


class ImageCachedAtSecondRead(ImageAgainstFile):
    said: ClassVar[Mapping[str, Any]] = {"cache": 400_000, "admit": "second"}


TestImageAgainstFile = ImageAgainstFile.TestCase
TestLimitedImage = LimitedImage.TestCase
TestImageCachedAtSecondRead = ImageCachedAtSecondRead.TestCase
