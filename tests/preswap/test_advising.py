# SPDX-License-Identifier: BSD-3-Clause
"""What the reads of real devices say of other sizes; the sampler itself is in test_sampler.py."""

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from preswapd.api.messages import Advice
from preswapd.preswap import creation
from preswapd.preswap.advising import PERIOD_SECONDS, Advising
from preswapd.preswap.device._device import Connection, Sampler
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running

SIZE = 32 * MIB
# Behind the scan zone.
FIRST = 2048


@pytest.fixture
def every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one is followed, so that figures are exact."""
    monkeypatch.setattr(creation, "Sampler", lambda: Sampler(0))


@pytest.fixture
def connection(running: Running, every_page: None) -> Connection:
    running.open(DeviceSpec("g1", SIZE), DeviceSpec("g2", SIZE))
    return running.connect()


def write(connection: Connection, pages: Sequence[int]) -> None:
    for page in pages:
        connection.pwrite(page_of(page % 251), (FIRST + page) * PAGE)


def read(connection: Connection, pages: Sequence[int]) -> None:
    for page in pages:
        connection.pread(bytearray(PAGE), (FIRST + page) * PAGE)


def from_memory(advice: Advice, pages: int) -> float:
    """With a pool of so many, or of the next smaller size that has a point."""
    return max((point.from_memory for point in advice.pool if point.pages <= pages), default=0.0)


def test_loop_needs_all_of_its_pages(running: Running, connection: Connection) -> None:
    write(connection, range(300))
    for _ in range(3):
        read(connection, range(300))
    advice = running.instance.advise()
    assert (advice.reads, advice.unseen, advice.sampled_reads) == (900, 0, 900)
    assert (from_memory(advice, 280), from_memory(advice, 320)) == (0.0, 1.0)
    # Nobody knows whether the guest had them in its memory between two reads.
    assert [point.least for point in advice.guest if point.pages <= 280] == pytest.approx(
        [0.0 for point in advice.guest if point.pages <= 280]
    )
    assert advice.guest[-1].least == advice.guest[-1].most == 1.0


def test_swap_ins_that_less_memory_would_have_ended(
    running: Running, connection: Connection
) -> None:
    """Each page comes back when twenty others were put out after it, however many there are."""
    for page in range(600):
        write(connection, [page])
        if page >= 20:
            read(connection, [page - 20])
    (smaller, larger) = (
        point.most
        for point in running.instance.advise().guest
        if point.pages in (19, 21)  # two points side by side
    )
    assert (smaller, larger) == (0.0, 1.0)


def test_reads_from_disk_count_as_those_from_memory(
    running: Running, connection: Connection
) -> None:
    write(connection, range(100))
    running.instance.shrink(0)
    read(connection, range(100))
    advice = running.instance.advise()
    assert advice.reads == 100
    assert from_memory(advice, 128) == 1.0


def test_scan_zone_is_no_memory_of_the_guest(running: Running, connection: Connection) -> None:
    for _ in range(3):
        connection.pread(bytearray(PAGE), 0)
        connection.pwrite(bytes(PAGE), 0)
    advice = running.instance.advise()
    assert (advice.reads, advice.sampled_pages) == (0, 0)


def test_trimmed_pages_are_followed_no_more(running: Running, connection: Connection) -> None:
    write(connection, range(100))
    connection.trim(90 * PAGE, (FIRST + 10) * PAGE)
    assert running.instance.advise().sampled_pages == 10
    running.instance.swapoff("g1")
    assert running.instance.advise().sampled_pages == 0


def test_devices_share_a_pool(running: Running, connection: Connection) -> None:
    """Pages of one lie between two uses of a page of the other, and each has its own reads."""
    write(connection, range(200))
    other = running.instance.devices["g2"].connect()
    write(other, range(200))
    read(connection, range(200))
    one, two, both = (running.instance.advise(name) for name in ("g1", "g2", None))
    assert (one.reads, two.reads, both.reads) == (200, 0, 200)
    assert (from_memory(one, 350), from_memory(one, 450)) == (0.0, 1.0)


def test_restart_begins_anew(running: Running, connection: Connection) -> None:
    write(connection, range(50))
    read(connection, range(50))
    running.stop()
    running.open()
    assert running.instance.advise().reads == 0
    read(running.connect(), range(50))
    advice = running.instance.advise()
    assert (advice.reads, advice.unseen, advice.pool) == (50, 50, [])


def test_memory_of_a_point_is_what_pages_take_and_the_room(
    running: Running, connection: Connection
) -> None:
    write(connection, range(100))
    read(connection, range(100))
    assert running.instance.advise().page_bytes is None
    assert {point.bytes for point in running.instance.advise().pool} == {None}
    write(connection, range(1000))
    advice = running.instance.advise()
    stats = running.instance.stats()["tmem"]
    assert advice.page_bytes == stats["mem_used_total"] / stats["stored_pages"]
    room = running.instance.sysctl.policy.writeback_room
    for point in advice.pool:
        assert point.bytes is not None
        assert point.bytes * (1 - room) == pytest.approx(point.pages * advice.page_bytes, abs=1)
    assert advice.pool_limit == stats["mem_limit"]


def test_days_go_by(running: Running, connection: Connection) -> None:
    now = [0.0]
    instance = running.instance
    advising = Advising(
        instance.maker.sampler, instance.host, instance.sysctl.policy, lambda: now[0]
    )
    write(connection, [1])
    found = []
    for hours in (6, 18, 30, 200):
        now[0] = hours * 3600.0
        advising.keep()
        read(connection, [1])
        advice = advising.advice(instance.all_devices())
        found.append((advice.reads, advice.seconds / 3600))
    # The reads of the last 12 to 24 hours.
    assert found == [(1, 6), (2, 18), (2, 18), (1, 20)]
    assert PERIOD_SECONDS == 12 * 3600


def test_some_pages_stand_for_all(running: Running) -> None:
    running.open(DeviceSpec("g1", 64 * MIB))
    connection = running.connect()
    for first in range(0, 8192, 64):
        connection.pwrite(bytes(64 * PAGE), (FIRST + first) * PAGE)
    for first in range(0, 8192, 64):
        connection.pread(bytearray(64 * PAGE), (FIRST + first) * PAGE)
    advice = running.instance.advise()
    assert advice.one_in == 16
    assert advice.sampled_reads * 16 == advice.reads
    assert advice.reads == pytest.approx(8192, rel=0.2)
    assert (from_memory(advice, 6000), from_memory(advice, 10000)) == (0.0, 1.0)


def test_requests_meet_those_who_ask(running: Running, connection: Connection) -> None:
    """Each read is counted once in each curve, whoever asks, trims or begins a period meanwhile."""
    instance, ended = running.instance, threading.Event()
    reads = 3000

    def use(seed: int) -> None:
        drawn, mine = random.Random(seed), connection
        own = [seed * 200 + page for page in range(200)]
        write(mine, own)
        for _ in range(reads):
            page = drawn.choice(own)
            read(mine, [page])
            if drawn.random() < 0.3:
                write(mine, [page])
            if drawn.random() < 0.05:
                mine.trim(PAGE, (FIRST + page) * PAGE)
                write(mine, [page])

    def ask() -> None:
        while not ended.is_set():
            pool, least, most, unseen, samples = running.device.reads()
            assert sum(pool) == sum(least) == sum(most)
            assert sum(pool) + unseen == samples
            instance.advise()
            time.sleep(0.001)

    with ThreadPoolExecutor(4) as pool:
        asking = pool.submit(ask)
        users = [pool.submit(use, seed) for seed in range(3)]
        try:
            for user in users:
                user.result()
        finally:
            ended.set()
        asking.result()
    assert instance.advise().reads == 3 * reads
    assert instance.advise().sampled_pages == 600


def test_device_that_is_removed_says_no_more(running: Running, connection: Connection) -> None:
    write(connection, range(10))
    read(connection, range(10))
    device = running.device
    connection.close()
    running.instance.remove("g1", force=True)
    with pytest.raises(OSError, match="removed"):
        device.reads()
    assert running.instance.advise().reads == 0
