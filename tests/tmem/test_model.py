"""Random histories: the native store answers as the model, whatever the limit and the restarts."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from preswapd.tmem._tmem import COMPRESS, Host
from tests.tmem.model import COUNTERS, Model
from tests.tmem.pages import KINDS, make_page, read_page

LIMITS = [0, 80_000, 200_000, 500_000, 1_000_000, 3_000_000]
OBJECTS = st.sampled_from([0, 1, 256, 2**64 - 1])
INDEXES = st.sampled_from([0, 1, 2, 255, 256, 65535, 65536, 2**32 - 1, 2**32])
MODEL_COUNTS = (*COUNTERS, "stored_pages", "same_filled_pages", "orig_data_size")


class StoreAgainstModel(RuleBasedStateMachine):
    pools: Bundle[int] = Bundle("pools")

    def __init__(self) -> None:
        super().__init__()
        self.shm = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
        self.host = Host(self.shm / "arena", LIMITS[-1], create=True)
        self.model = Model(LIMITS[-1])
        self.used = self.host.stats()["mem_used_total"]

    def teardown(self) -> None:
        try:
            self.every_page_is_right()
        finally:
            self.host.close()
            shutil.rmtree(self.shm)

    def put_one(
        self, pool: int, obj: int, index: int, page: bytes, compress: str, keep_old: bool
    ) -> None:
        must_reject = self.model.must_reject(pool, obj, index)
        if self.host.put_page(pool, obj, index, page, compress=compress, keep_old=keep_old):
            assert not must_reject
            self.model.stored(pool, obj, index, page)
        else:
            self.model.rejected(pool, obj, index, keep_old)

    @precondition(lambda self: len(self.model.pools) < 4)
    @rule(target=pools)
    def new_pool(self) -> int:
        pool = self.host.new_pool()
        assert pool == self.model.new_pool()
        return pool

    @rule(pool=consumes(pools))
    def destroy_pool(self, pool: int) -> None:
        assert self.host.destroy_pool(pool) == self.model.destroy_pool(pool)

    @rule(
        pool=pools,
        obj=OBJECTS,
        index=INDEXES,
        kind=st.sampled_from(KINDS),
        tag=st.integers(0, 50),
        compress=st.sampled_from(COMPRESS),
        keep_old=st.booleans(),
    )
    def put(
        self, pool: int, obj: int, index: int, kind: str, tag: int, compress: str, keep_old: bool
    ) -> None:
        self.put_one(pool, obj, index, make_page(kind, tag), compress, keep_old)

    @rule(
        pool=pools,
        obj=OBJECTS,
        start=st.integers(0, 300),
        count=st.integers(1, 120),
        kind=st.sampled_from(KINDS),
        compress=st.sampled_from(COMPRESS),
    )
    def put_many(
        self, pool: int, obj: int, start: int, count: int, kind: str, compress: str
    ) -> None:
        for index in range(start, start + count):
            self.put_one(pool, obj, index, make_page(kind, index), compress, keep_old=False)

    @rule(pool=pools, obj=OBJECTS, index=INDEXES)
    def get(self, pool: int, obj: int, index: int) -> None:
        into = bytearray(4096)
        found = self.model.get_page(pool, obj, index, into)
        assert read_page(self.host, pool, obj, index) == (bytes(into) if found else None)

    @rule(pool=pools, obj=OBJECTS, index=INDEXES)
    def flush_page(self, pool: int, obj: int, index: int) -> None:
        done = self.model.flush_page(pool, obj, index)
        assert self.host.flush_page(pool, obj, index) == done

    @rule(pool=pools, obj=OBJECTS, start=st.integers(0, 300), step=st.integers(1, 3))
    def flush_many(self, pool: int, obj: int, start: int, step: int) -> None:
        for index in range(start, start + 120, step):
            self.flush_page(pool, obj, index)

    @rule(pool=pools, obj=OBJECTS)
    def flush_object(self, pool: int, obj: int) -> None:
        assert self.host.flush_object(pool, obj) == self.model.flush_object(pool, obj)

    @rule(pool=pools, frozen=st.booleans())
    def freeze(self, pool: int, frozen: bool) -> None:
        self.host.freeze(pool, frozen)
        self.model.freeze(pool, frozen)

    @rule(pool=pools, pages=st.sampled_from([0, 3, 60, 2**64 - 1]))
    def set_max_pages(self, pool: int, pages: int) -> None:
        self.host.set_max_pages(pool, pages)
        self.model.set_max_pages(pool, pages)

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: int) -> None:
        self.host.limit = limit

    @rule(everything=st.booleans())
    def maintain(self, everything: bool) -> None:
        self.host.maintain(all=everything)

    @rule()
    def restart(self) -> None:
        """What a kill between two operations leaves, read by a new process."""
        limit = self.host.limit
        self.host.close()
        self.host = Host(self.shm / "arena", limit, create=False)
        found = self.host.recover()
        self.model.recover()
        assert found["stored_pages"] == self.model.stats()["stored_pages"]
        assert found["losers"] == found["damaged_slots"] == found["damaged_slabs"] == 0
        self.every_page_is_right()

    def every_page_is_right(self) -> None:
        for pool, content in self.model.pools.items():
            for (obj, index), page in content.pages.items():
                self.model.count["gets"] += 1
                self.model.count["found_gets"] += 1
                assert read_page(self.host, pool, obj, index) == page

    @invariant()
    def counts_agree(self) -> None:
        expected, stats = self.model.stats(), self.host.stats()
        assert {name: stats[name] for name in MODEL_COUNTS} == expected

    @invariant()
    def memory_is_what_the_file_holds(self) -> None:
        stats = self.host.stats()
        used = stats["mem_used_total"]
        assert used == (self.shm / "arena").stat().st_blocks * 512
        assert stats["mem_used_max"] >= used
        assert used <= max(self.used, self.host.limit)
        self.used = used


TestStoreAgainstModel = StoreAgainstModel.TestCase
