# SPDX-License-Identifier: BSD-3-Clause
"""Threads on the same pages while memory is taken back: every read is what some write left."""

import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import cast

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap.device._device import FLAG_FUA, Connection
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback import room
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, read
from tests.running import PATIENCE, wait_until

PAGES = 512
WRITERS = 4
SECONDS = 60.0 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 4.0


def signed_page(page: int, version: int) -> bytes:
    """Says in each of its 64 lines what it is, and compresses more or less."""
    line = b"%06d %08d " % (page, version)
    filler = random.Random(version).randbytes(PAGE) if version % 3 == 0 else bytes(PAGE)
    return b"".join(line + filler[64 * i + 16 : 64 * (i + 1)] for i in range(64))


def version_of(page: int, found: bytes) -> int:
    """The version of a page that must be whole; 0: zeros."""
    if found == bytes(PAGE):
        return 0
    version = int(found[7:15])
    assert found == signed_page(page, version)
    return version


class Writer:
    """Owns every WRITERS-th page: it alone writes them, so it knows what they must be."""

    def __init__(
        self, connection: Connection, number: int, until: float, pages: int = PAGES
    ) -> None:
        self.connection = connection
        self.mine = range(1 + number, pages, WRITERS)
        self.versions = dict.fromkeys(self.mine, 0)
        self.random = random.Random(number)
        self.until = until
        self.next = 1 + number

    def run(self) -> None:
        while time.monotonic() < self.until:
            page = self.random.choice(self.mine)
            self.random.choice([self.write, self.write, self.part, self.trim, self.look])(page)
        for page in self.mine:
            self.look(page)

    def write(self, page: int) -> None:
        self.next += WRITERS
        flags = FLAG_FUA if self.random.random() < 0.05 else 0
        self.connection.pwrite(signed_page(page, self.next), page * PAGE, flags)
        self.versions[page] = self.next

    def part(self, page: int) -> None:
        """The second half, and then the first."""
        self.next += WRITERS
        data = signed_page(page, self.next)
        self.connection.pwrite(data[PAGE // 2 :], page * PAGE + PAGE // 2)
        self.connection.pwrite(data[: PAGE // 2], page * PAGE)
        self.versions[page] = self.next

    def trim(self, page: int) -> None:
        (self.connection.trim if page % 2 else self.connection.zero)(PAGE, page * PAGE)
        self.versions[page] = 0

    def look(self, page: int) -> None:
        found = read(self.connection, page * PAGE, PAGE)
        assert version_of(page, found) == self.versions[page], f"page {page}"


def disturb(running: Running, until: float) -> None:
    """Limits that swing every 50 ms, shrinks, and all that goes on in the background.

    A lowered limit begins a fit in the background, and a shrink is refused while that runs.
    """
    instance, rng = running.instance, random.Random(1)
    while time.monotonic() < until:
        instance.host.limit = rng.choice([0, 200_000, 8 * MIB])
        pages, name = rng.choice([0, 10, 300]), rng.choice([None, "g1"])
        with suppress(RefusedError):
            instance.shrink(pages, name)
        instance.maintain()
        running.device.recompress("zstd", 0, since=-inf, before=inf, nanoseconds=10**9)
        for device in instance.stats()["devices"].values():
            for gauge in ("preswap_pages", "disk_pages", "lost_pages", "stale_pages"):
                assert device[gauge] <= PAGES
        time.sleep(0.05)


def sweep(connection: Connection, until: float, pages: int = PAGES) -> None:
    """Reads of many pages at once: each half of a page is whole, as some request wrote it."""
    while time.monotonic() < until:
        found = read(connection, 0, pages * PAGE)
        for page in range(1, pages):
            for at in (0, PAGE // 2):
                check_half(page, at, found[page * PAGE + at :][: PAGE // 2])
        connection.extents(pages * PAGE, 0)


def check_half(page: int, at: int, found: bytes) -> None:
    if found != bytes(PAGE // 2):
        version = int(found[7:15])
        assert found == signed_page(page, version)[at : at + PAGE // 2]


@pytest.mark.timeout(int(SECONDS) + 120)
def test_threads_read_what_they_wrote(running: Running) -> None:
    running.open(DeviceSpec("g1", PAGES * PAGE))
    until = time.monotonic() + SECONDS
    guest = running.connect()
    writers = [Writer(guest, number, until) for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS + 2) as pool:
        jobs = [pool.submit(writer.run) for writer in writers]
        jobs.append(pool.submit(disturb, running, until))
        jobs.append(pool.submit(sweep, running.connect(), until))
        for job in jobs:
            job.result()
    check_coherence(running.instance)
    running.kill()
    running.open()
    found = read(running.connect())
    for writer in writers:
        for page, version in writer.versions.items():
            assert version_of(page, found[page * PAGE : (page + 1) * PAGE]) == version
    check_coherence(running.instance)


FEW_PAGES = 64


def keep_room(running: Running, until: float) -> None:
    """What the thread for it does, with nothing to wait for; policies swing."""
    instance, rng = running.instance, random.Random(2)
    policy = instance.sysctl.policy
    policy.writeback_rate = None
    while time.monotonic() < until:
        policy.writeback_room = rng.choice([0.0, 0.05, 0.5, 0.9])
        policy.writeback_idle = rng.choice([None, 0.0, 0.0])
        instance.idle.found_none_at = 0.0
        instance.idle.looked_at -= 1.0  # a second ago
        instance.room.turn(1)
        instance.idle.turn()


def bring_back(running: Running, until: float) -> None:
    """Pages come back at every read, numbers of epochs change over, and pages are packed."""
    instance = running.instance
    while time.monotonic() < until:
        running.device.promoted_below = None
        instance.epochs.change_over()
        running.device.renumber()
        running.device.forget_left()
        running.device.recompress("zstd", 0, since=-inf, before=inf, nanoseconds=10**6)
        instance.host.compact()
        instance.host.settle()
        time.sleep(0.001)


def shrink_again(running: Running, until: float) -> None:
    instance, rng = running.instance, random.Random(3)
    while time.monotonic() < until:
        with suppress(RefusedError):
            instance.shrink(rng.choice([0, 10, 40]), rng.choice([None, "g1"]))
        instance.host.limit = rng.choice([50_000, 150_000, 8 * MIB])
        instance.maintain()
        time.sleep(0.02)


@pytest.mark.timeout(int(SECONDS) + 120)
def test_threads_meet_on_few_pages_that_go_and_come_back(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room, idle writeback, shrinks, promotion, mover, recompression, trims, puts and gets."""
    monkeypatch.setattr(room, "PAUSE_SECONDS", 0.001)
    running.open(DeviceSpec("g1", FEW_PAGES * PAGE))
    running.instance.compress_later()
    until = time.monotonic() + SECONDS
    guest = running.connect()
    writers = [Writer(guest, number, until, FEW_PAGES) for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS + 4) as pool:
        jobs = [pool.submit(writer.run) for writer in writers]
        for work in (keep_room, bring_back, shrink_again):
            jobs.append(pool.submit(work, running, until))
        jobs.append(pool.submit(sweep, running.connect(), until, FEW_PAGES))
        for job in jobs:
            job.result()
    running.fitted()
    check_coherence(running.instance)
    figures = cast(Mapping[str, int], running.device.stats())
    for what in ("written_back_room", "written_back_idle", "promoted_pages", "refaults"):
        assert figures[what] > 0, what
    running.kill()
    running.open()
    found = read(running.connect())
    for writer in writers:
        for page, version in writer.versions.items():
            assert version_of(page, found[page * PAGE : (page + 1) * PAGE]) == version
    check_coherence(running.instance)


def test_threads_on_the_same_pages_leave_whole_pages(running: Running) -> None:
    """Requests are atomic for each page, whoever wins."""
    running.open(DeviceSpec("g1", MIB))
    running.instance.host.limit = 100_000
    until = time.monotonic() + SECONDS / 4
    connection = running.connect()

    def fight(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            first = rng.randrange(1, 40)
            data = b"".join(signed_page(first + i, number * 100 + i) for i in range(8))
            connection.pwrite(data, first * PAGE, rng.choice([0, 0, FLAG_FUA]))
            seen = read(connection, first * PAGE, 8 * PAGE)
            for i in range(8):
                version_of(first + i, seen[i * PAGE : (i + 1) * PAGE])

    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(fight, number) for number in range(1, 5)]:
            job.result()
    check_coherence(running.instance)


# --- a request in flight for as long as it is wanted ---


class HeldUp:
    """The first write to a clean device: it waits for the mark, whose sidecar is not written."""

    def __init__(
        self, running: Running, pool: ThreadPoolExecutor, connection: Connection | None = None
    ) -> None:
        self.connection = connection or running.connect()
        self.released = threading.Event()
        record = running.instance.served["g1"].record
        write = record.write

        def write_late(sidecar: Sidecar) -> None:
            assert self.released.wait(PATIENCE)
            write(sidecar)

        setattr(record, "write", write_late)  # noqa: B010 - a method, on this one object
        self.request: Future[None] = pool.submit(self.connection.pwrite, page_of(1), PAGE)
        wait_until(lambda: running.device.seconds_since_io is not None, "the request to begin")

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def pool(running: Running) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads
        running.kill()


@pytest.fixture
def clean(running: Running) -> Running:
    running.open()
    running.stop()
    running.open()
    return running


@pytest.fixture
def held_up(clean: Running, pool: ThreadPoolExecutor) -> HeldUp:
    return HeldUp(clean, pool)


def test_new_connection_waits_for_requests_in_flight(
    running: Running, pool: ThreadPoolExecutor, held_up: HeldUp
) -> None:
    """The client of the old one has gone, and sends its request again over the new one."""
    held_up.connection.close()
    fresh = running.connect()
    again = pool.submit(fresh.pwrite, page_of(2), PAGE)
    wait_until(again.running, "the write to begin")
    # Of an older connection: a request that need not wait, and is through.
    pool.submit(read, held_up.connection, 0, PAGE).result()
    assert not again.done()
    held_up.release()
    again.result()
    held_up.request.result()
    assert read(fresh, PAGE, PAGE) == page_of(2)


def test_new_connection_waits_with_every_kind_of_request(
    running: Running, pool: ThreadPoolExecutor, held_up: HeldUp
) -> None:
    fresh = running.connect()
    waiting: list[Future[object]] = [
        pool.submit(read, fresh, PAGE, PAGE),
        pool.submit(fresh.trim, PAGE, 2 * PAGE),
        pool.submit(fresh.zero, PAGE, 2 * PAGE),
        pool.submit(fresh.flush),
        pool.submit(fresh.extents, PAGE, 0),
    ]
    wait_until(lambda: all(request.running() for request in waiting), "the requests to begin")
    pool.submit(read, held_up.connection, 0, PAGE).result()
    assert not any(request.done() for request in waiting)
    held_up.release()
    assert waiting[0].result() == page_of(1)
    for request in waiting:
        request.result()


def test_first_change_waits_for_what_began_since_it_connected(
    clean: Running, pool: ThreadPoolExecutor
) -> None:
    """Of an older connection; a read does not, which leaves that one its place."""
    old, fresh = clean.connect(), clean.connect()
    held_up = HeldUp(clean, pool, old)
    assert pool.submit(read, fresh, 0, PAGE).result()
    begun = clean.device.events
    changes: list[Future[None]] = [
        pool.submit(fresh.pwrite, page_of(2), PAGE),
        pool.submit(fresh.trim, PAGE, 2 * PAGE),
        pool.submit(fresh.zero, PAGE, 2 * PAGE),
    ]
    wait_until(lambda: all(change.running() for change in changes), "the changes to begin")
    for _ in range(20):
        pool.submit(read, old, 0, PAGE).result()
    # None of them waits for the mark, which the request in flight would have first.
    assert clean.device.events - begun == 20
    held_up.release()
    held_up.request.result()
    for change in changes:
        change.result()
    assert read(fresh, PAGE, PAGE) == page_of(2)


def test_change_that_waits_is_superseded(
    clean: Running, pool: ThreadPoolExecutor, held_up: HeldUp
) -> None:
    """It had not begun when a newer connection came with its first change."""
    old = clean.connect()
    waiting = pool.submit(old.pwrite, page_of(3), PAGE)
    wait_until(waiting.running, "the write to begin")
    fresh = clean.connect()
    newest = pool.submit(fresh.pwrite, page_of(2), PAGE)
    wait_until(newest.running, "the write to begin")
    time.sleep(0.05)  # both wait by now, or it is another order that is as good
    held_up.release()
    newest.result()
    with suppress(ConnectionAbortedError):
        waiting.result()
    assert read(fresh, PAGE, PAGE) == page_of(2)


def test_remove_waits_for_requests_in_flight(
    running: Running, pool: ThreadPoolExecutor, held_up: HeldUp
) -> None:
    device = running.device
    removal = pool.submit(running.instance.remove, "g1", force=True)
    wait_until(lambda: is_closed(device.connect()), "the device to close")
    assert not removal.done()
    held_up.release()
    held_up.request.result()
    removal.result()
    assert not list(running.paths.state_dir.iterdir())


def is_closed(connection: Connection) -> bool:
    try:
        connection.device.coldest()
    except OSError:
        return True
    return False


def test_remove_ends_requests_that_wait(
    running: Running, pool: ThreadPoolExecutor, held_up: HeldUp
) -> None:
    waiting = pool.submit(read, running.connect())
    removal = pool.submit(running.instance.remove, "g1", force=True)
    with pytest.raises(OSError, match="transport endpoint shutdown"):
        waiting.result()
    held_up.release()
    removal.result()


def test_park_says_whether_all_has_ended(running: Running, held_up: HeldUp) -> None:
    assert not running.device.park(1)
    held_up.release()
    held_up.request.result()
    assert running.device.park(1)


def test_park_answers_nothing(running: Running, pool: ThreadPoolExecutor) -> None:
    """A client sends again what was not answered, to the next server."""
    running.open()
    connection = running.connect()
    assert running.device.park(0)
    waiting = pool.submit(read, connection)
    wait_until(waiting.running, "the read to begin")
    running.kill()
    with pytest.raises(OSError, match="transport endpoint shutdown"):
        waiting.result()


def test_stop_with_a_request_in_flight_stays_dirty(running: Running, held_up: HeldUp) -> None:
    """It ends, without waiting for the request, and what it would have written is not there."""
    running.instance.close()
    assert not held_up.request.done()
    held_up.release()
    held_up.request.result()
    assert not running.sidecar().clean


def test_sync_of_a_device_that_is_busy_says_so(
    running: Running, held_up: HeldUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries as often as elsewhere, where each time is a second."""
    monkeypatch.setattr("preswapd.preswap.instance.PARK_MILLISECONDS", 50)
    result = running.instance.begin_sync().wait()
    assert (result.complete, result.reason) == (False, "g1: its requests take too long")
    held_up.release()
    held_up.request.result()
    assert read(running.connect(), PAGE, PAGE) == page_of(1)
    assert not running.sidecar().clean


def test_removed_device_leaves_no_descriptor(running: Running) -> None:
    instance = running.open()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        instance.create("more", MIB)
        instance.devices["more"].connect().pwrite(page_of(1), PAGE)
        instance.remove("more", force=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_refused_start_leaves_no_descriptor(running: Running) -> None:
    running.open()
    running.kill()
    running.paths.disk_file("g1").unlink()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(RefusedError):
            running.open()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
