# SPDX-License-Identifier: BSD-3-Clause
"""Memory is taken back: as many pages as were asked for, coldest first, and it is really free."""

import os
import threading

import pytest

from preswapd.api.messages import ShrinkProgress
from preswapd.errors import RefusedError
from preswapd.preswap.device._device import EXTENT_PAGES
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback.movers import MOVES_AT_ONCE, Movers
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of, pages_of
from tests.preswap.running import MIB, Running, read
from tests.running import PATIENCE
from tests.tmem.arena_file import RAW, flip_bit, slots_of

SIZE = 4 * MIB
PAGES = SIZE // PAGE - 1


@pytest.fixture
def filled(running: Running) -> Running:
    """Two devices with 1023 pages each in tmem."""
    instance = running.open(DeviceSpec("g1", SIZE), DeviceSpec("g2", SIZE))
    for name, tag in (("g1", 1), ("g2", 2)):
        instance.devices[name].connect().pwrite(pages_of(tag, SIZE - PAGE), PAGE)
    return running


def pages_left(running: Running) -> dict[str, int]:
    return {name: device.preswap_pages for name, device in running.instance.devices.items()}


@pytest.mark.parametrize("target", [0, 1, 100, 256, 1000, PAGES, 2 * PAGES])
def test_shrink_total_is_exact(filled: Running, target: int) -> None:
    result = filled.instance.shrink(target)
    assert (result.left, result.moved) == (target, 2 * PAGES - target)
    assert result.complete
    assert sum(pages_left(filled).values()) == target
    check_coherence(filled.instance)


def test_shrink_of_one_device(filled: Running) -> None:
    filled.instance.shrink(10, "g2")
    assert pages_left(filled) == {"g1": PAGES, "g2": 10}


def test_shrink_keeps_every_byte(filled: Running) -> None:
    filled.instance.shrink(300)
    for name, tag in (("g1", 1), ("g2", 2)):
        connection = filled.instance.devices[name].connect()
        assert read(connection, PAGE) == pages_of(tag, SIZE - PAGE)


def test_shrink_above_what_is_there(filled: Running) -> None:
    result = filled.instance.shrink(10 * PAGES)
    assert (result.complete, result.moved) == (True, 0)


def test_shrink_coldest_extents_first(filled: Running) -> None:
    """The second extent of g1 is written again, all others are older."""
    device = filled.device
    device.connect().pwrite(pages_of(9, EXTENT_PAGES * PAGE), EXTENT_PAGES * PAGE)
    filled.instance.shrink(EXTENT_PAGES)
    left = device.preswap_map.find(1)
    assert (left, device.preswap_pages) == (EXTENT_PAGES, EXTENT_PAGES)


def test_what_is_read_is_not_cold(filled: Running) -> None:
    """The first extent of g1 was written before all others, and is read since."""
    device = filled.device
    filled.instance.epochs.begin()
    read(device.connect(), PAGE, (EXTENT_PAGES - 1) * PAGE)
    filled.instance.shrink(EXTENT_PAGES - 1)
    assert device.preswap_map.find(0, 1) == EXTENT_PAGES
    assert device.preswap_pages == EXTENT_PAGES - 1


def test_coldest_orders_by_age(running: Running) -> None:
    running.open(DeviceSpec("g1", SIZE))
    for extent in (3, 1, 2):
        running.connect().pwrite(page_of(extent), extent * EXTENT_PAGES * PAGE)
    extents = running.device.coldest()
    assert [extents[i][1:] for i in range(len(extents))] == [(1, 3), (1, 1), (1, 2)]


def test_shrink_gives_memory_back(filled: Running) -> None:
    filled.instance.shrink(0)
    used = os.stat(filled.paths.arena).st_blocks * 512
    assert used == filled.instance.host.stats()["mem_used_total"]
    assert used * 100 < filled.settings.pool_size


def test_shrink_rejects_puts_meanwhile(filled: Running) -> None:
    """New pages go to disk while it runs, and to tmem after it."""
    connection = filled.device.connect()
    before = filled.device.stats()["failed_stores"]

    def put(step: ShrinkProgress) -> None:
        connection.pwrite(page_of(4), PAGE)

    filled.instance.shrink(0, progress=put)
    assert int(filled.device.stats()["failed_stores"]) > int(before)
    assert filled.device.preswap_pages == 0
    connection.pwrite(page_of(4), PAGE)
    assert filled.device.preswap_pages == 1


def test_shrink_of_one_device_rejects_puts_meanwhile(filled: Running) -> None:
    connection = filled.device.connect()

    def put(step: ShrinkProgress) -> None:
        connection.pwrite(page_of(4), PAGE)

    filled.instance.shrink(0, "g1", progress=put)
    assert pages_left(filled) == {"g1": 0, "g2": PAGES}
    connection.pwrite(page_of(4), PAGE)
    assert filled.device.preswap_pages == 1


def test_shrink_tells_progress(filled: Running) -> None:
    steps: list[ShrinkProgress] = []
    filled.instance.shrink(0, progress=steps.append)
    moved = [step.moved for step in steps]
    assert moved == sorted(set(moved))
    # A move under way may have moved pages that are not told yet.
    assert all(step.left <= 2 * PAGES - step.moved for step in steps)
    assert all(step.left >= 2 * PAGES - step.moved - EXTENT_PAGES for step in steps)
    assert steps[-1] == ShrinkProgress(2 * PAGES, 0, 0)


def test_shrink_cancelled_says_so(filled: Running) -> None:
    steps: list[ShrinkProgress] = []

    def stop_at_the_second(step: ShrinkProgress) -> None:
        steps.append(step)
        if len(steps) == 2:
            filled.instance.shrinks.stop()

    result = filled.instance.shrink(0, progress=stop_at_the_second)
    assert len(steps) <= 2 + MOVES_AT_ONCE
    assert (result.complete, result.reason) == (False, "interrupted")
    assert result.left == 2 * PAGES - result.moved == sum(pages_left(filled).values())
    assert filled.instance.shrink(0).complete


def test_shrink_can_be_stopped_as_soon_as_it_moves(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may have moved pages before the one that started it goes on."""
    start, moved = threading.Thread.start, threading.Event()

    def start_and_wait(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "shrink":
            assert moved.wait(PATIENCE)

    def stop(step: ShrinkProgress) -> None:
        moved.set()
        filled.instance.shrinks.stop()

    monkeypatch.setattr(threading.Thread, "start", start_and_wait)
    assert filled.instance.shrink(0, progress=stop).reason == "interrupted"


def test_shrink_one_at_a_time(filled: Running) -> None:
    def again(step: ShrinkProgress) -> None:
        with pytest.raises(RefusedError, match="a shrink is under way already"):
            filled.instance.shrink(0)

    assert filled.instance.shrink(0, progress=again).complete


def test_shrink_of_no_device(filled: Running) -> None:
    with pytest.raises(RefusedError, match="there is no device g9"):
        filled.instance.shrink(0, "g9")
    assert filled.instance.shrink(0).complete


def test_shrink_while_a_device_is_removed(filled: Running) -> None:
    def remove(step: ShrinkProgress) -> None:
        if "g2" in filled.instance.devices:
            filled.instance.remove("g2", force=True)

    assert filled.instance.shrink(0, progress=remove).complete
    assert pages_left(filled) == {"g1": 0}


def test_shrink_under_load_says_why_it_ends(filled: Running) -> None:
    """A guest that writes each page again before it has left: nothing is lost, it ends."""
    connection = filled.device.connect()
    filled.instance.shrink(5)

    def rewrite(step: ShrinkProgress) -> None:
        filled.instance.host.set_max_pages(0, 1 << 40)
        connection.pwrite(pages_of(3, 8 * PAGE), PAGE)

    result = filled.instance.shrink(0, progress=rewrite)
    assert not result.complete
    assert result.reason == "guests put pages back as fast as they were moved"
    assert read(connection, PAGE, 8 * PAGE) == pages_of(3, 8 * PAGE)


def test_shrink_damaged_page_is_lost_and_named(filled: Running) -> None:
    """The page can't be read, so it can't be moved: it leaves tmem, and the shrink goes on."""
    damage_one_payload(filled)
    result = filled.instance.shrink(0)
    assert (result.complete, result.lost) == (True, 1)
    assert result.moved == 2 * PAGES - 1
    assert sum(int(d.stats()["lost_pages"]) for d in filled.instance.devices.values()) == 1
    check_coherence(filled.instance)


def damage_one_payload(running: Running) -> None:
    """Turns over one bit of a page that is stored as it is."""
    slot = next(slot for slot in slots_of(running.paths.arena) if slot.codec == RAW)
    flip_bit(running.paths.arena, slot.payload_at + 100, 0)


def test_movers_that_cannot_all_begin_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that failed is tried again every minute, and each try would leave a thread."""
    movers = Movers()

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(movers.threads[-1], "start", fail)
    with pytest.raises(RuntimeError), movers:
        pass
    for thread in movers.threads[:-1]:
        thread.join(PATIENCE)
        assert not thread.is_alive()
