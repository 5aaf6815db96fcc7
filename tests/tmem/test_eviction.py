# SPDX-License-Identifier: BSD-3-Clause
"""Which pages go when a put needs room or the limit is lowered, and which never do."""

import random
from pathlib import Path

import pytest

from preswapd.errors import PageDamagedError
from preswapd.tmem._tmem import EXCLUSIVE_GETS, PERSISTENT, SHARED, Host
from preswapd.units import PAGE_SIZE as PAGE
from tests.tmem.arena_file import flip_bit, slots_of
from tests.tmem.model import Model, Store
from tests.tmem.pages import make_page, read_page

MIB = 1 << 20
NOISE = make_page("noise", 0)
UUID = b"one secret of 16"


def has(store: Store, pool: int, index: int) -> bool:
    return store.get_page(pool, 0, index, bytearray(PAGE))


def fill(store: Store, *pools: int, first: int = 0) -> int:
    """Puts noise into the pools in turn until something is evicted; how many pages."""
    before, n = store.stats()["evicted_pages"], first
    while store.stats()["evicted_pages"] == before:
        assert store.put_page(pools[n % len(pools)], 0, n, make_page("noise", n))
        n += 1
    return n


def put_many(store: Store, pool: int, count: int) -> None:
    for index in range(count):
        assert store.put_page(pool, 0, index, make_page("noise", index))


@pytest.fixture
def small(store: Store) -> Store:
    store.limit = MIB
    return store


def test_oldest_goes_first(small: Store) -> None:
    pool = small.new_pool(flags=0)
    count = fill(small, pool)
    evicted = small.stats()["evicted_pages"]
    assert [has(small, pool, i) for i in range(count)] == [i >= evicted for i in range(count)]


def test_oldest_of_all_pools_goes_first(small: Store) -> None:
    pools = [small.new_pool(flags=0), small.new_pool(UUID, SHARED), small.new_pool(flags=0)]
    count = fill(small, *pools)
    evicted = small.stats()["evicted_pages"]
    there = [has(small, pools[i % 3], i) for i in range(count)]
    assert there == [i >= evicted for i in range(count)]


def test_persistent_put_evicts(small: Store) -> None:
    cache, pool = small.new_pool(flags=0), small.new_pool()
    fill(small, cache)
    before = small.stats()["evicted_pages"]
    put_many(small, pool, 100)
    assert small.stats()["evicted_pages"] > before
    assert all(has(small, pool, i) for i in range(100))


def test_persistent_pages_are_never_evicted(small: Store) -> None:
    pool, shared = small.new_pool(), small.new_pool(UUID, SHARED | PERSISTENT)
    put_many(small, pool, 60)
    put_many(small, shared, 60)
    cache = small.new_pool(flags=0)
    for _ in range(3):
        fill(small, cache)
    assert all(has(small, pool, i) and has(small, shared, i) for i in range(60))


def test_full_of_persistent_pages_rejects(small: Store) -> None:
    pool, cache = small.new_pool(), small.new_pool(flags=0)
    index = 0
    while small.put_page(pool, 0, index, make_page("noise", index)):
        index += 1
    assert not small.put_page(cache, 0, 0, NOISE)
    assert all(has(small, pool, i) for i in range(index))


def test_dup_put_counts_as_newest(small: Store) -> None:
    pool = small.new_pool(flags=0)
    put_many(small, pool, 100)
    small.put_page(pool, 0, 0, make_page("noise", 1000))
    count = fill(small, pool, first=100)
    assert has(small, pool, 0)
    assert not has(small, pool, 1)
    assert has(small, pool, count - 1)


def test_put_after_a_get_counts_as_newest(small: Store) -> None:
    pool = small.new_pool(flags=0)
    put_many(small, pool, 100)
    assert has(small, pool, 0)
    small.put_page(pool, 0, 0, NOISE)
    fill(small, pool, first=100)
    assert has(small, pool, 0)


def test_got_page_has_a_second_chance(small: Store) -> None:
    pool = small.new_pool(UUID, SHARED)
    put_many(small, pool, 100)
    assert has(small, pool, 0)
    assert has(small, pool, 3)
    count = fill(small, pool, first=100)
    evicted = small.stats()["evicted_pages"]
    spared = [i for i in (0, 3) if i < evicted]
    gone = [i for i in range(evicted + len(spared)) if i not in (0, 3)]
    assert [has(small, pool, i) for i in range(count)] == [i not in gone for i in range(count)]


def test_second_chance_is_one(small: Store) -> None:
    """A page that is not got again goes when its turn comes again."""
    pool = small.new_pool(UUID, SHARED)
    put_many(small, pool, 100)
    assert has(small, pool, 0)
    count = fill(small, pool, first=100)
    for index in range(count, 3 * count):
        small.put_page(pool, 0, index, make_page("noise", index))
    assert not has(small, pool, 0)


def test_put_over_a_got_page_needs_a_new_get(small: Store) -> None:
    pool = small.new_pool(UUID, SHARED)
    put_many(small, pool, 100)
    assert has(small, pool, 0)
    small.put_page(pool, 0, 0, NOISE)
    count = fill(small, pool, first=100)
    for index in range(count, count + 100):
        small.put_page(pool, 0, index, make_page("noise", index))
    assert not has(small, pool, 0)


def test_pool_of_got_pages_only_still_makes_room(small: Store) -> None:
    """Of any nine pages one goes, so that a put never has to walk through all of them."""
    cache, pool = small.new_pool(UUID, SHARED), small.new_pool()
    count = fill(small, cache)
    there = [index for index in range(count) if has(small, cache, index)]
    put_many(small, pool, 50)
    assert all(has(small, pool, index) for index in range(50))
    assert 30 < sum(not has(small, cache, index) for index in there) < len(there)


def test_eight_are_passed_over_for_each_that_goes(small: Store) -> None:
    cache, pool = small.new_pool(UUID, SHARED), small.new_pool()
    count = fill(small, cache)
    there = [index for index in range(count) if has(small, cache, index)]
    before = small.stats()["evicted_pages"]
    fill(small, pool)
    evicted = small.stats()["evicted_pages"] - before
    assert 0 < evicted < len(there) // 9
    gone = [index for index in there if not has(small, cache, index)]
    assert gone == there[8 : 9 * evicted : 9]


# Of a page that does not compress.
LENGTH = PAGE + 32


def test_limit_of_a_pool_takes_its_own_oldest(store: Store) -> None:
    other, cache = store.new_pool(UUID, SHARED), store.new_pool(b"another of these", SHARED)
    put_many(store, other, 50)
    store.set_max_bytes(cache, 100 * LENGTH)
    put_many(store, cache, 300)
    assert [has(store, cache, i) for i in range(300)] == [i >= 200 for i in range(300)]
    assert all(has(store, other, i) for i in range(50))
    stats = {"pages": 100, "bytes": 100 * LENGTH, "evicted": 200, "evicted_by_itself": 200}
    assert store.pool_stats(cache) == stats
    assert store.pool_stats(other)["evicted"] == 0


def test_limit_of_a_pool_in_a_full_host_takes_nobody_elses(host: Host) -> None:
    """Its own go before a slot is looked for: the oldest of all would be others'."""
    host.limit = 4 * MIB
    other, cache = host.new_pool(UUID, SHARED), host.new_pool(b"another of these", SHARED)
    fill(host, other)
    host.set_max_bytes(cache, 100 * LENGTH)
    put_many(host, cache, 100)
    before = host.pool_stats(other)["evicted"]
    for index in range(100, 400):
        assert host.put_page(cache, 0, index, make_page("noise", index))
    stats = host.pool_stats(cache)
    assert (stats["pages"], stats["evicted_by_itself"]) == (100, 300)
    assert host.pool_stats(other)["evicted"] == before


def test_limit_of_a_pool_holds_with_interleaved_puts(store: Store) -> None:
    pools = [store.new_pool(bytes([i + 1]) * 16, SHARED) for i in range(3)]
    for pool, most in zip(pools, (10, 40, 300), strict=True):
        store.set_max_bytes(pool, most * LENGTH)
    for index in range(500):
        for pool in pools:
            assert store.put_page(pool, 0, index, make_page("noise", index))
    for pool, most in zip(pools, (10, 40, 300), strict=True):
        assert [has(store, pool, i) for i in range(500)] == [i >= 500 - most for i in range(500)]


def test_limit_of_a_pool_gives_a_second_chance(store: Store) -> None:
    cache = store.new_pool(UUID, SHARED)
    store.set_max_bytes(cache, 100 * LENGTH)
    put_many(store, cache, 100)
    assert has(store, cache, 0)
    assert has(store, cache, 3)
    for index in range(100, 150):
        store.put_page(cache, 0, index, make_page("noise", index))
    gone = [i for i in range(52) if i not in (0, 3)]
    assert [has(store, cache, i) for i in range(150)] == [i not in gone for i in range(150)]


def test_spared_page_of_a_limited_pool_has_one_place(store: Store) -> None:
    """The newest: not its old one too."""
    cache = store.new_pool(UUID, SHARED)
    store.set_max_bytes(cache, 10 * LENGTH)
    put_many(store, cache, 10)
    assert has(store, cache, 0)
    store.put_page(cache, 0, 10, NOISE)  # 0 is spared, 1 goes
    store.set_max_bytes(cache, 3 * LENGTH)
    assert [i for i in range(11) if has(store, cache, i)] == [0, 9, 10]


def test_limit_of_a_pool_can_be_lowered_and_raised(store: Store) -> None:
    cache = store.new_pool(UUID, SHARED)
    put_many(store, cache, 300)
    store.set_max_bytes(cache, 100 * LENGTH)
    assert [has(store, cache, i) for i in range(300)] == [i >= 200 for i in range(300)]
    store.set_max_bytes(cache, 200 * LENGTH)
    for index in range(300, 400):
        store.put_page(cache, 0, index, make_page("noise", index))
    assert store.pool_stats(cache)["evicted"] == 200


def test_limit_of_a_pool_too_small_for_a_page_rejects(store: Store) -> None:
    cache, other = store.new_pool(UUID, SHARED), store.new_pool(flags=0)
    put_many(store, other, 10)
    store.set_max_bytes(cache, LENGTH - 1)
    assert not store.put_page(cache, 0, 0, NOISE)
    assert store.stats()["evicted_pages"] == 0


def test_persistent_pool_has_no_limit_in_bytes(store: Store) -> None:
    pool = store.new_pool()
    with pytest.raises(ValueError, match="ephemeral"):
        store.set_max_bytes(pool, MIB)


def test_limit_of_a_pool_is_forgotten_with_it(store: Store) -> None:
    cache = store.new_pool(UUID, SHARED)
    store.set_max_bytes(cache, 10 * LENGTH)
    put_many(store, cache, 20)
    store.destroy_pool(cache)
    assert store.new_pool(UUID, SHARED) == cache
    put_many(store, cache, 50)
    stats = {"pages": 50, "bytes": 50 * LENGTH, "evicted": 0, "evicted_by_itself": 0}
    assert store.pool_stats(cache) == stats


def test_limited_pools_find_their_pages_among_others(host: Host) -> None:
    """Whatever is taken, swept out and put before and behind the place where they look."""
    rng = random.Random(5)
    uuids = [bytes([i + 1]) * 16 for i in range(3)]
    model = Model(host.limit)
    pools = [host.new_pool(uuid, SHARED) for uuid in uuids]
    assert [model.new_pool(uuid, SHARED) for uuid in uuids] == pools
    for pool in pools[:2]:
        host.set_max_bytes(pool, 300 * LENGTH)
    for n in range(15_000):
        pool, index = rng.choice(pools), rng.randrange(700)
        if rng.random() < 0.3:
            assert host.flush_page(pool, 0, index) == model.flush_page(pool, 0, index)
            continue
        assert host.put_page(pool, 0, index, NOISE)
        gone = host.pool_stats(pool)["evicted_by_itself"]
        if more := gone - model.find(pool).evicted_by_itself:
            model.evict_by_itself(pool, more)
        model.stored(pool, 0, index, NOISE)
        if n % 2000 == 0:
            host.maintain(all=True)
    for pool in pools:
        assert {i for i in range(700) if has(host, pool, i)} == {
            i for _, i in model.find(pool).pages
        }
    assert all(host.pool_stats(pool)["evicted_by_itself"] > 500 for pool in pools[:2])


def test_queue_of_spared_entries_is_bounded(host: Host) -> None:
    """Each put passes over eight pages, and leaves eight places behind."""
    other, cache = host.new_pool(UUID, SHARED), host.new_pool(b"another of these", SHARED)
    for index in range(500):  # at the front: nothing is taken out there
        host.put_page(other, 0, index, bytes(PAGE))
    host.set_max_bytes(cache, 500 * 40)
    for n in range(20_000):
        host.put_page(cache, 0, n % 700, bytes(PAGE))
        for back in range(12):
            has(host, cache, (n - back * 40) % 700)
    assert host.pool_stats(cache)["evicted_by_itself"] > 1000
    assert host.stats()["metadata_size"] <= 1000 * 24 + 3 * 1024 * 16


def test_evict_all_spares_persistent_pages(store: Store) -> None:
    pool, cache, shared = store.new_pool(), store.new_pool(flags=0), store.new_pool(UUID, SHARED)
    for number in (pool, cache, shared):
        put_many(store, number, 50)
    assert has(store, shared, 3)
    assert store.evict_all() == 100
    assert store.stats()["ephemeral_pages"] == 0
    assert all(has(store, pool, index) for index in range(50))


def test_ephemeral_puts_leave_the_spare_room_free(host: Host) -> None:
    host.limit = 4 * MIB
    host.set_spare(MIB)
    cache = host.new_pool(UUID, SHARED)
    for index in range(2000):
        host.put_page(cache, 0, index, make_page("noise", index))
    assert host.lacking() <= 0
    assert host.stats()["mem_used_total"] > 2 * MIB
    assert host.stats()["evicted_pages"] > 0


def test_spare_room_is_left_free_by_pages_of_any_length(host: Host) -> None:
    """A slab of each class grows by itself."""
    host.limit = 4 * MIB
    host.set_spare(MIB)
    cache = host.new_pool(UUID, SHARED)
    for index in range(4000):
        length = 128 * (1 + index % 31)
        page = random.Random(index).randbytes(length) + bytes(PAGE - length)
        host.put_page(cache, 0, index, page)
        assert host.lacking() <= 0
    assert host.stats()["evicted_pages"] > 0


def test_ephemeral_puts_leave_emptied_slabs_to_others(host: Host) -> None:
    """Memory that persistent pages have left counts as free for them."""
    host.limit = 4 * MIB
    pool, cache = host.new_pool(), host.new_pool(UUID, SHARED)
    put_many(host, pool, 800)
    host.flush_object(pool, 0)
    host.set_spare(2 * MIB)
    for index in range(800):
        host.put_page(cache, 0, index, make_page("noise", index))
    assert host.lacking() <= 0


def test_persistent_puts_take_the_spare_room(host: Host) -> None:
    host.limit = 4 * MIB
    host.set_spare(MIB)
    cache, pool = host.new_pool(UUID, SHARED), host.new_pool()
    fill(host, cache)
    before = host.stats()["evicted_pages"]
    put_many(host, pool, 200)
    assert host.stats()["evicted_pages"] == before
    assert host.lacking() > 0


@pytest.mark.parametrize("staging", [False, True])
def test_burst_takes_all_ephemeral_memory(host: Host, staging: bool) -> None:
    """Not one persistent put is rejected before the last ephemeral page has gone."""
    host.limit = 4 * MIB
    host.set_staging(staging)
    cache, pool = host.new_pool(UUID, SHARED), host.new_pool()
    fill(host, cache)
    index = 0
    while host.put_page(pool, 0, index, make_page("noise", index)):
        index += 1
    assert host.stats()["ephemeral_pages"] == 0
    assert index > 850
    assert all(has(host, pool, i) for i in range(index))


def test_make_spare_evicts_no_more_than_it_must(host: Host) -> None:
    host.limit = 8 * MIB
    cache, pool = host.new_pool(UUID, SHARED), host.new_pool()
    put_many(host, cache, 1000)
    put_many(host, pool, 700)
    host.set_spare(2 * MIB)
    host.make_spare()
    assert host.lacking() <= 0
    assert 200 < host.stats()["evicted_pages"] < 500
    assert all(has(host, pool, i) for i in range(700))


def test_pool_stats_say_whose_pages_went(host: Host) -> None:
    host.limit = MIB
    first, second = host.new_pool(UUID, SHARED), host.new_pool(flags=0)
    put_many(host, first, 60)
    fill(host, second)
    stats = host.pool_stats(first)
    assert stats == {"pages": 60 - stats["evicted"], "bytes": stats["pages"] * 4128, **stats}
    assert 0 < stats["evicted"] == host.stats()["evicted_pages"]
    host.destroy_pool(first)
    assert host.new_pool(flags=0) == first
    assert host.pool_stats(first) == {"pages": 0, "bytes": 0, "evicted": 0, "evicted_by_itself": 0}


def test_moved_page_keeps_its_second_chance(host: Host) -> None:
    cache = host.new_pool(UUID, SHARED)
    put_many(host, cache, 1500)
    for index in range(1500):
        if index % 3:
            host.flush_page(cache, 0, index)
    assert has(host, cache, 0)
    host.maintain(all=True)
    assert host.stats()["moved_pages"] > 0
    host.limit = MIB
    host.maintain(all=True)
    assert host.stats()["evicted_pages"] > 10
    assert has(host, cache, 0)
    assert not has(host, cache, 3)


def test_rejected_put_into_a_frozen_pool_evicts_nothing(small: Store) -> None:
    cache, frozen = small.new_pool(flags=0), small.new_pool()
    small.freeze(frozen, True)
    fill(small, cache)
    before = small.stats()["ephemeral_pages"]
    assert not small.put_page(frozen, 0, 0, NOISE)
    assert small.stats()["ephemeral_pages"] == before


def test_stale_entry_spares_the_next_pool_with_its_number(small: Store) -> None:
    cache = small.new_pool(flags=0)
    put_many(small, cache, 50)
    small.destroy_pool(cache)
    assert small.new_pool() == cache
    put_many(small, cache, 50)
    fill(small, small.new_pool(flags=0))
    assert all(has(small, cache, i) for i in range(50))


def test_lowered_limit_evicts_at_maintain(store: Store) -> None:
    pool, cache = store.new_pool(), store.new_pool(flags=0)
    put_many(store, pool, 100)
    put_many(store, cache, 1000)
    store.limit = 2 * MIB
    store.maintain()
    assert 0 < store.stats()["evicted_pages"] < 1000
    assert all(has(store, pool, i) for i in range(100))
    assert has(store, cache, 999)


def test_lowered_limit_keeps_persistent_pages(store: Store) -> None:
    pool, cache = store.new_pool(), store.new_pool(flags=0)
    put_many(store, pool, 300)
    put_many(store, cache, 300)
    store.limit = MIB
    store.maintain()
    assert store.stats()["ephemeral_pages"] == 0
    assert all(has(store, pool, i) for i in range(300))
    assert not store.put_page(pool, 0, 300, NOISE)


def test_put_above_a_lowered_limit_evicts_nothing(store: Store) -> None:
    """It would be in vain: nothing gets in before maintain() has given memory back."""
    cache = store.new_pool(flags=0)
    put_many(store, cache, 1000)
    store.limit = MIB
    for index in range(10):
        assert not store.put_page(cache, 1, index, NOISE)
    assert store.stats()["evicted_pages"] == 0


def test_limit_down_and_up(store: Store) -> None:
    cache = store.new_pool(flags=0)
    put_many(store, cache, 1000)
    store.limit = 2 * MIB
    store.maintain()
    store.limit = 64 * MIB
    put_many(store, cache, 1000)
    assert store.stats()["ephemeral_pages"] == 1000


def test_lowered_limit_holds_after_maintain(host: Host) -> None:
    """Also where persistent and ephemeral pages share slabs, denser than the mover cares for."""
    pool, cache = host.new_pool(), host.new_pool(flags=0)
    for index in range(3000):
        host.put_page(pool if index % 2 else cache, 0, index, make_page("noise", index))
    host.limit = 1500 * 4400 + 2 * 65536
    host.maintain(all=True)
    assert host.stats()["mem_used_total"] <= host.limit
    assert all(read_page(host, pool, 0, i) == make_page("noise", i) for i in range(1, 3000, 2))


def test_lowered_limit_takes_empty_memory_first(host: Host) -> None:
    pool, cache = host.new_pool(), host.new_pool(flags=0)
    put_many(host, pool, 1000)
    put_many(host, cache, 500)
    host.flush_object(pool, 0)
    host.limit = 500 * 4400 + 2 * 65536
    host.maintain()
    assert host.stats()["evicted_pages"] == 0
    assert host.stats()["mem_used_total"] <= host.limit


def test_moved_page_keeps_its_age(host: Host) -> None:
    """Every third page moves; the oldest that are left go first all the same."""
    cache = host.new_pool(UUID, SHARED)
    put_many(host, cache, 1500)
    for index in range(1500):
        if index % 3:
            host.flush_page(cache, 0, index)
    host.maintain(all=True)
    assert host.stats()["moved_pages"] > 0
    host.limit = MIB
    host.maintain(all=True)
    evicted = 3 * host.stats()["evicted_pages"]
    assert 0 < evicted < 1500
    assert [has(host, cache, i) for i in range(0, 1500, 3)] == [
        i >= evicted for i in range(0, 1500, 3)
    ]


@pytest.mark.parametrize("change", ["put", "get", "flush"])
def test_queue_of_stale_entries_is_bounded(host: Host, change: str) -> None:
    """By puts alone: nobody calls maintain()."""
    cache = host.new_pool(flags=0)
    for n in range(40_000):
        host.put_page(cache, 0, n % 500, bytes(PAGE))
        if change == "get":
            has(host, cache, n % 500)
        elif change == "flush":
            host.flush_page(cache, 0, n % 500)
    assert host.stats()["metadata_size"] <= 500 * 24 + 3 * 1024 * 16


def test_maintain_sweeps_stale_entries(host: Host) -> None:
    cache = host.new_pool(flags=0)
    for index in range(40_000):
        host.put_page(cache, 0, index, bytes(PAGE))
    host.flush_object(cache, 0)
    assert host.stats()["metadata_size"] >= 40_000 * 16
    host.maintain(all=True)
    assert host.stats()["metadata_size"] <= 2 * 1024 * 16


def test_sweep_keeps_the_order(host: Host) -> None:
    """Also of entries that it moves from one block of the queue to another."""
    cache = host.new_pool(UUID, SHARED)
    put_many(host, cache, 4000)
    for index in range(4000):
        if index % 4 != 1:
            host.flush_page(cache, 0, index)
    host.maintain(all=True)
    host.limit = 3 * MIB
    host.maintain(all=True)
    evicted = 4 * host.stats()["evicted_pages"]
    assert 0 < evicted < 4000
    left = range(1, 4000, 4)
    assert [has(host, cache, i) for i in left] == [i >= evicted for i in left]


def test_metadata_of_ephemeral_pages_is_small(host: Host) -> None:
    """With its header of 32 bytes, 56 a page; each page was put three times."""
    cache = host.new_pool(flags=0)
    for n in range(60_000):
        host.put_page(cache, n % 16, n // 16 % 1250, make_page("text", n % 100))
    stats = host.stats()
    assert stats["ephemeral_pages"] == 20_000
    assert stats["metadata_size"] <= (56 - 32) * 20_000


@pytest.mark.parametrize("flags", [0, PERSISTENT | EXCLUSIVE_GETS])
def test_damaged_page_is_not_removed_by_a_get(host: Host, flags: int) -> None:
    """Not found would be a lie: it was put, and nobody has had it."""
    pool = host.new_pool(flags=flags)
    host.put_page(pool, 0, 0, NOISE)
    flip_bit(Path(host.path), slots_of(Path(host.path))[0].payload_at, 0)
    for _ in range(2):
        with pytest.raises(PageDamagedError):
            read_page(host, pool, 0, 0)


def test_ephemeral_pools_are_gone_after_a_restart(shm: Path) -> None:
    host = Host(shm / "arena", MIB, create=True)
    cache, shared, pool = host.new_pool(flags=0), host.new_pool(UUID, SHARED), host.new_pool()
    for number in (cache, shared, pool):
        put_many(host, number, 20)
    host.close()
    again = Host(shm / "arena", MIB, create=False)
    assert again.recover()["dropped_pages"] == 40
    assert [again.has_pool(n) for n in (cache, shared, pool)] == [False, False, True]
    assert all(read_page(again, pool, 0, i) == make_page("noise", i) for i in range(20))
    again.close()


def test_shared_persistent_pool_is_joined_after_a_restart(shm: Path) -> None:
    host = Host(shm / "arena", MIB, create=True)
    pool = host.new_pool(UUID, SHARED | PERSISTENT)
    put_many(host, pool, 2)
    host.close()
    again = Host(shm / "arena", MIB, create=False)
    again.recover()
    assert again.new_pool(b"another of these", SHARED | PERSISTENT) != pool
    assert again.new_pool(UUID, SHARED | PERSISTENT) == pool
    assert read_page(again, pool, 0, 1) == make_page("noise", 1)
    again.close()


@pytest.mark.parametrize("call", ["new_pool", "destroy_pool"])
def test_pools_of_an_unrecovered_arena_stay(shm: Path, call: str) -> None:
    """The number of one that went would be given away with the pages that nobody found yet."""
    host = Host(shm / "arena", MIB, create=True)
    host.put_page(host.new_pool(), 0, 0, NOISE)
    host.close()
    again = Host(shm / "arena", MIB, create=False)
    with pytest.raises(ValueError, match="recovered first"):
        getattr(again, call)(*([] if call == "new_pool" else [0]))
    again.recover()
    assert read_page(again, 0, 0, 0) == NOISE
    again.close()
