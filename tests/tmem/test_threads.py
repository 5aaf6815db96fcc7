# SPDX-License-Identifier: BSD-3-Clause
"""Threads on the same handles: each page says itself which handle and version it is of.

The work is counted, not timed; the maintenance thread goes on, and the limit swings each 50 ms,
until the work is done.
"""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import cycle

import pytest

from preswapd.tmem._tmem import COMPRESS, Host
from preswapd.units import PAGE_SIZE as PAGE
from tests.tmem.stepped import run_operation
from tests.tmem.test_crash import sparse

MIB = 1 << 20
THREADS = 4
ROUNDS = 15_000
LIMITS = (MIB // 2, 2 * MIB, MIB // 8, 16 * MIB)


@pytest.fixture(params=["at once", "staged"])
def host(request: pytest.FixtureRequest, host: Host) -> Host:
    """One that compresses in the put, and one that does so afterwards."""
    host.set_staging(request.param == "staged")
    return host


@lru_cache(8192)
def page_of(handle: int, version: int) -> bytes:
    """Its first 8 bytes name it; the rest follows from them, in five ways."""
    name = handle.to_bytes(4, "little") + version.to_bytes(4, "little")
    if version % 4 == 0:
        return name * (PAGE // 8)
    if version % 16 == 1:
        return name + random.Random(name).randbytes(1500).hex().encode().ljust(PAGE - 8, b"\0")
    amount = (600, 3000, PAGE - 8)[version % 4 - 1]
    return name + random.Random(name).randbytes(amount).ljust(PAGE - 8, b"\0")


def version_in(handle: int, page: bytes) -> int:
    """Which version it is; a torn page, or another handle's, is none."""
    version = int.from_bytes(page[4:8], "little")
    assert page == page_of(handle, version)
    return version


def get(host: Host, pool: int, handle: int) -> int | None:
    into = bytearray(PAGE)
    found = host.get_page(pool, handle % 16, handle >> 4, into)
    return version_in(handle, bytes(into)) if found else None


def put(host: Host, pool: int, handle: int, version: int) -> bool:
    page = page_of(handle, version)
    compress = COMPRESS[version % 3]
    return host.put_page(pool, handle % 16, handle >> 4, page, compress=compress)


@contextmanager
def disturbed(host: Host, swing_limit: bool = True) -> Iterator[None]:
    """Maintenance runs, pages are recompressed and the limit swings meanwhile."""
    done = threading.Event()

    def maintain() -> None:
        while not done.wait(0.001):
            host.maintain(all=True)

    def swing() -> None:
        limits = cycle(LIMITS)
        while not done.wait(0.05):
            host.limit = next(limits)

    def settle() -> None:
        while not done.is_set():
            host.settle(1)

    def recompress() -> None:
        rng = random.Random(0)
        while not done.is_set():
            handle = rng.randrange(1024)
            # The newest pool: what is to stay sparse in the first one would be packed.
            pool = int(host.has_pool(1))
            with suppress(KeyError):
                host.recompress_page(pool, handle % 16, handle >> 4, "zstd")

    with ThreadPoolExecutor(5) as workers:
        tasks = [maintain, maintain, settle, recompress, *([swing] if swing_limit else [])]
        running = [workers.submit(task) for task in tasks]
        try:
            yield
        finally:
            done.set()
        for task in running:
            task.result()


def in_threads(work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(THREADS) as workers:
        for done in [workers.submit(work, number) for number in range(THREADS)]:
            done.result()


def check_quiet(host: Host, pool: int) -> None:
    """With nothing in flight the counts are exact, and all memory comes back."""
    stored = sum(get(host, pool, handle) is not None for handle in range(1024))
    assert host.stats()["stored_pages"] == stored
    assert host.stats()["checksum_errors"] == 0
    assert host.destroy_pool(pool) == stored
    host.maintain(all=True)
    stats = host.stats()
    assert stats["stored_pages"] == stats["live_slot_bytes"] == stats["compr_data_size"] == 0
    assert stats["mem_used_total"] == 8192


def test_overlapping_handles(host: Host) -> None:
    pool = host.new_pool()

    def work(number: int) -> None:
        rng = random.Random(number)
        for version in range(ROUNDS):
            handle = rng.randrange(200)
            choice = rng.random()
            if choice < 0.5:
                put(host, pool, handle, version)
            elif choice < 0.9:
                get(host, pool, handle)
            elif choice < 0.99:
                host.flush_page(pool, handle % 16, handle >> 4)
            else:
                host.flush_object(pool, handle % 16)

    with disturbed(host):
        in_threads(work)
    check_quiet(host, pool)


def test_own_writes_are_seen(host: Host) -> None:
    """One writer a handle: after its put only that version, after a reject or flush nothing."""
    pool = host.new_pool()

    def work(number: int) -> None:
        rng = random.Random(number)
        for version in range(ROUNDS):
            handle = rng.randrange(64) * THREADS + number
            if rng.random() < 0.15:
                host.flush_page(pool, handle % 16, handle >> 4)
                assert get(host, pool, handle) is None
            else:
                stored = put(host, pool, handle, version)
                assert get(host, pool, handle) == (version if stored else None)

    with disturbed(host):
        in_threads(work)
    check_quiet(host, pool)


def test_versions_never_go_back(host: Host) -> None:
    """Put-put-get, as readers beside the one writer see it."""
    pool = host.new_pool()
    progress = [0] * 16

    def write() -> None:
        rng = random.Random(1)
        for version in range(1, ROUNDS):
            handle = rng.randrange(16)
            put(host, pool, handle, version)
            progress[handle] = version

    def read(seed: int) -> None:
        rng = random.Random(seed)
        seen = [0] * 16
        for _ in range(ROUNDS):
            handle = rng.randrange(16)
            written = progress[handle]
            version = get(host, pool, handle)
            if version is not None:
                assert version >= max(seen[handle], written)
                seen[handle] = version

    with disturbed(host):
        in_threads(lambda number: write() if number == 0 else read(number))
    check_quiet(host, pool)


def test_nothing_is_lost_below_the_limit(host: Host) -> None:
    """Puts that keep the old page, and a mover that never rests: each page is its last version."""
    pool = host.new_pool()
    last: dict[int, int] = {}

    def work(number: int) -> None:
        rng = random.Random(number)
        for version in range(ROUNDS):
            handle = rng.randrange(256) * THREADS + number
            page = page_of(handle, version)
            if host.put_page(pool, handle % 16, handle >> 4, page, keep_old=True):
                last[handle] = version

    with disturbed(host):
        in_threads(work)
    assert {handle: get(host, pool, handle) for handle in last} == last
    assert host.stats()["stored_pages"] == len(last)
    check_quiet(host, pool)


@pytest.mark.parametrize("host", ["at once"], indirect=True)
def test_mover_brings_no_page_back(host: Host) -> None:
    """A pool that stays sparse, and a few pages that move and change all the time."""
    for operation in [["new_pool"], *sparse()]:
        run_operation(host, operation)
    pool = host.new_pool()

    def work(number: int) -> None:
        rng = random.Random(number)
        for version in range(2, 4 * ROUNDS, 4):
            handle = rng.randrange(16) * THREADS + number
            if rng.random() < 0.4:
                host.flush_page(pool, handle % 16, handle >> 4)
                assert get(host, pool, handle) is None
            else:
                assert put(host, pool, handle, version)
                assert get(host, pool, handle) == version

    with disturbed(host, swing_limit=False):
        in_threads(work)
    assert host.stats()["moved_pages"] > 0
    host.destroy_pool(0)
    check_quiet(host, pool)


def test_pools_come_and_go(host: Host) -> None:
    """A put that races with the end of its pool is in no pool afterwards."""
    pools = [host.new_pool()]
    stop = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            for _ in range(3000):
                host.destroy_pool(pools.pop())
                fresh = host.new_pool()
                pools.append(fresh)
            stop.set()
            return
        while not stop.is_set():
            try:
                put(host, pools[-1], number, 1)
            except (KeyError, IndexError):
                continue

    in_threads(work)
    host.destroy_pool(pools.pop())
    assert host.stats()["stored_pages"] == 0
