# SPDX-License-Identifier: BSD-3-Clause
"""Random histories: the native store answers as the model, whatever the limit and the restarts.

Pools of all kinds live side by side under one limit.  Which pages are evicted is for the store to
say, by their number alone: the model says which those must have been.
"""

import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from preswapd.tmem._tmem import COMPRESS, EXCLUSIVE_GETS, PERSISTENT, SHARED, Host
from tests.tmem.arena_file import CLASSES
from tests.tmem.model import COUNTERS, HEADER, Model
from tests.tmem.pages import KINDS, make_page, read_page

LIMITS = [0, 80_000, 200_000, 500_000, 1_000_000, 3_000_000]
OBJECTS = st.sampled_from([0, 1, 256, 2**64 - 1])
INDEXES = st.sampled_from([0, 1, 2, 255, 256, 65535, 65536, 2**32 - 1, 2**32])
MODEL_COUNTS = (
    *COUNTERS,
    "stored_pages",
    "ephemeral_pages",
    "same_filled_pages",
    "orig_data_size",
)
FLAGS = st.sampled_from([0, PERSISTENT, SHARED, SHARED | PERSISTENT])
UUIDS = st.sampled_from([bytes(16), b"a" * 16, b"b" * 16])
# Which of the pools that there are, by position.
WHICH = st.integers(0, 5)


def outcome(store: Host | Model, uuid: bytes, flags: int) -> int | None:
    """The pool's id; None when it is refused."""
    try:
        return store.new_pool(uuid, flags)
    except ValueError:
        return None


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shm = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
        self.host = Host(self.shm / "arena", LIMITS[-1], create=True)
        self.model = Model(LIMITS[-1])
        self.used = self.host.stats()["mem_used_total"]
        self.staged = 0

    def teardown(self) -> None:
        try:
            self.every_page_is_right()
        finally:
            self.host.close()
            shutil.rmtree(self.shm)

    def pick(self, which: int) -> int:
        pools = sorted(self.model.pools)
        return pools[which % len(pools)]

    def learn_evictions(self) -> None:
        """The oldest pages must be the ones that went; reading the others tells."""
        evicted = self.host.stats()["evicted_pages"] - self.model.count["evicted_pages"]
        assert evicted <= self.model.ephemeral_pages()
        self.model.evict(evicted)

    def learn_evictions_by_itself(self, pool: int) -> None:
        """The pool's own oldest ones, before any went of all."""
        evicted = self.host.pool_stats(pool)["evicted_by_itself"]
        self.model.evict_by_itself(pool, evicted - self.model.find(pool).evicted_by_itself)

    def put_one(
        self, pool: int, obj: int, index: int, page: bytes, compress: str, keep_old: bool
    ) -> None:
        must_reject = self.model.must_reject(pool, obj, index)
        stored = self.host.put_page(pool, obj, index, page, compress=compress, keep_old=keep_old)
        self.learn_evictions_by_itself(pool)
        self.learn_evictions()
        if stored:
            assert not must_reject
            self.model.stored(pool, obj, index, page)
        else:
            self.model.rejected(pool, obj, index, keep_old)

    @initialize(flags=FLAGS)
    def first_pool(self, flags: int) -> None:
        self.new_pool(b"a" * 16, flags, exclusive=False)

    @precondition(lambda self: len(self.model.pools) < 6)
    @rule(uuid=UUIDS, flags=FLAGS, exclusive=st.booleans())
    def new_pool(self, uuid: bytes, flags: int, exclusive: bool) -> None:
        flags |= EXCLUSIVE_GETS * exclusive
        assert outcome(self.host, uuid, flags) == outcome(self.model, uuid, flags)

    @precondition(lambda self: len(self.model.pools) > 1)
    @rule(which=WHICH)
    def destroy_pool(self, which: int) -> None:
        pool = self.pick(which)
        assert self.host.destroy_pool(pool) == self.model.destroy_pool(pool)
        assert self.host.has_pool(pool) == self.model.has_pool(pool)

    @rule(
        which=WHICH,
        obj=OBJECTS,
        index=INDEXES,
        kind=st.sampled_from(KINDS),
        tag=st.integers(0, 50),
        compress=st.sampled_from(COMPRESS),
        keep_old=st.booleans(),
    )
    def put(
        self, which: int, obj: int, index: int, kind: str, tag: int, compress: str, keep_old: bool
    ) -> None:
        self.put_one(self.pick(which), obj, index, make_page(kind, tag), compress, keep_old)

    @rule(
        which=WHICH,
        obj=OBJECTS,
        start=st.integers(0, 300),
        count=st.integers(1, 120),
        kind=st.sampled_from(KINDS),
        compress=st.sampled_from(COMPRESS),
    )
    def put_many(
        self, which: int, obj: int, start: int, count: int, kind: str, compress: str
    ) -> None:
        pool = self.pick(which)
        for index in range(start, start + count):
            self.put_one(pool, obj, index, make_page(kind, index), compress, keep_old=False)

    @rule(which=WHICH, obj=OBJECTS, index=INDEXES)
    def get(self, which: int, obj: int, index: int) -> None:
        self.look(self.pick(which), obj, index)

    def look(self, pool: int, obj: int, index: int) -> None:
        into = bytearray(4096)
        found = self.model.get_page(pool, obj, index, into)
        assert read_page(self.host, pool, obj, index) == (bytes(into) if found else None)

    @rule(which=WHICH, obj=OBJECTS, index=INDEXES)
    def flush_page(self, which: int, obj: int, index: int) -> None:
        pool = self.pick(which)
        done = self.model.flush_page(pool, obj, index)
        assert self.host.flush_page(pool, obj, index) == done

    @rule(which=WHICH, obj=OBJECTS, start=st.integers(0, 300), step=st.integers(1, 3))
    def flush_many(self, which: int, obj: int, start: int, step: int) -> None:
        for index in range(start, start + 120, step):
            self.flush_page(which, obj, index)

    @rule(which=WHICH, obj=OBJECTS)
    def flush_object(self, which: int, obj: int) -> None:
        pool = self.pick(which)
        assert self.host.flush_object(pool, obj) == self.model.flush_object(pool, obj)

    @rule(which=WHICH, frozen=st.booleans())
    def freeze(self, which: int, frozen: bool) -> None:
        pool = self.pick(which)
        self.host.freeze(pool, frozen)
        self.model.freeze(pool, frozen)

    @rule(which=WHICH, pages=st.sampled_from([0, 3, 60, 2**64 - 1]))
    def set_max_pages(self, which: int, pages: int) -> None:
        pool = self.pick(which)
        self.host.set_max_pages(pool, pages)
        self.model.set_max_pages(pool, pages)

    @rule(which=WHICH, size=st.sampled_from([0, 40, 20_000, 100_000, 2**64 - 1]))
    def set_max_bytes(self, which: int, size: int) -> None:
        pool = self.pick(which)
        if self.model.pools[pool].is_ephemeral:
            self.host.set_max_bytes(pool, size)
            self.learn_evictions_by_itself(pool)
            self.model.pools[pool].max_bytes = size

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: int) -> None:
        self.host.limit = limit

    @rule(everything=st.booleans())
    def maintain(self, everything: bool) -> None:
        self.host.maintain(all=everything)
        self.learn_evictions()
        if self.model.ephemeral_pages():
            assert self.host.stats()["mem_used_total"] <= self.host.limit

    @rule(spare=st.sampled_from([0, 50_000, 400_000]))
    def make_spare(self, spare: int) -> None:
        self.host.set_spare(spare)
        self.host.make_spare()
        self.learn_evictions()
        assert self.host.lacking() <= 0 or not self.model.ephemeral_pages()

    @rule()
    def evict_all(self) -> None:
        assert self.host.evict_all() == self.model.evict_all()

    @rule()
    def pack(self) -> None:
        before = self.host.stats()["mem_used_total"]
        self.host.pack()
        assert self.host.stats()["mem_used_total"] == before

    @rule(on=st.booleans())
    def stage(self, on: bool) -> None:
        self.host.set_staging(on)

    @rule()
    def settle(self) -> None:
        self.host.settle()

    @rule(which=WHICH, obj=OBJECTS, start=st.integers(0, 300), compress=st.sampled_from(COMPRESS))
    def recompress_many(self, which: int, obj: int, start: int, compress: str) -> None:
        before = self.host.stats()
        done = [
            self.host.recompress_page(self.pick(which), obj, index, compress)
            for index in range(start, start + 120)
        ]
        after = self.host.stats()
        assert after["recompressed_pages"] == before["recompressed_pages"] + sum(done)
        saved = after["recompress_saved"] - before["recompress_saved"]
        assert after["live_slot_bytes"] == before["live_slot_bytes"] - saved
        assert saved >= 32 * sum(done)

    @rule()
    def restart(self) -> None:
        """What a kill between two operations leaves, read by a new process."""
        limit = self.host.limit
        self.host.close()
        self.host = Host(self.shm / "arena", limit, create=False)
        found = self.host.recover()
        self.model.recover()
        assert found["stored_pages"] == self.model.stats()["stored_pages"]
        if not self.model.pools:
            self.new_pool(bytes(16), PERSISTENT, exclusive=False)
        assert found["losers"] == found["damaged_slots"] == found["damaged_slabs"] == 0
        self.every_page_is_right()

    def every_page_is_right(self) -> None:
        for pool, content in self.model.pools.items():
            for obj, index in list(content.pages):
                self.look(pool, obj, index)

    @invariant()
    def counts_agree(self) -> None:
        expected, stats = self.model.stats(), self.host.stats()
        assert {name: stats[name] for name in MODEL_COUNTS} == expected
        assert stats["staged_pages"] <= stats["huge_pages"]
        for number, pool in self.model.pools.items():
            found = self.host.pool_stats(number)
            assert found["pages"] == len(pool.pages)
            assert found["bytes"] <= pool.max_bytes
            assert found["evicted"] == pool.evicted
            assert found["evicted_by_itself"] == pool.evicted_by_itself
            assert found["pages"] * HEADER <= found["bytes"] <= found["pages"] * (HEADER + 4096)
        assert stats["ephemeral_bytes"] == sum(
            self.host.pool_stats(number)["bytes"]
            for number, pool in self.model.pools.items()
            if pool.is_ephemeral
        )

    @invariant()
    def memory_is_what_the_file_holds(self) -> None:
        stats = self.host.stats()
        used = stats["mem_used_total"]
        assert used == (self.shm / "arena").stat().st_blocks * 512
        assert stats["mem_used_max"] >= used
        # Above a lowered limit a step of a slab for each class may be taken, to compress pages.
        more = 16384 * len(CLASSES) if self.staged else 0
        assert used <= max(self.used + more, self.host.limit)
        self.used, self.staged = used, stats["staged_pages"]


TestStoreAgainstModel = StoreAgainstModel.TestCase
